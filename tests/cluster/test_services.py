"""Ray's end is told in a line; an error of ours that came through Ray keeps its traceback. (Its processes: label/test_run.py.)"""

import signal
import threading

import pytest
from ray.exceptions import RaySystemError, RayTaskError

from levit_batch.errors import JobError
from pipelines.cluster.services import dead_services, watched
from pipelines.interrupt import end, interruptible


def test_what_ray_says_of_its_end_is_one_line_and_a_bug_stays_a_bug():
    with pytest.raises(JobError, match=r"^Ray broke down \(.*\); what is written stays, and the same"), watched(False):
        raise RaySystemError("The node\nhas died.")
    with pytest.raises(RayTaskError), watched(False):
        raise RayTaskError("work", "traceback", ValueError("a bug"))
    with pytest.raises(KeyboardInterrupt), watched(False):
        raise KeyboardInterrupt


def test_without_a_ray_of_our_own_nothing_has_died():
    assert dead_services() == []


def test_another_thread_ends_the_main_one_with_an_error():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        interruptible()
        with pytest.raises(JobError, match="so it is"), watched(False):
            threading.Thread(target=end, args=(JobError("so it is"),)).start()
            threading.Event().wait(30)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
