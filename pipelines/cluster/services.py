"""Ray's own processes, where it was started here: when one of them dies, the job ends with a word.

Left alone, Ray's C++ ends this process some seconds later, in silence: no record of the run, nobody notified, the lock kept.
Now and then one of Ray's errors comes first: it is told in the same line. And now and then Ray's C++ is faster all the same,
or the main thread waits inside of it: the next run takes the lock of a process that is no more.
"""

import contextlib
import sys
import threading
from collections.abc import Iterator

from levit_batch.errors import JobError, brief
from pipelines.cluster.local import inside
from pipelines.interrupt import Ended, end

SERVICES = ("raylet", "gcs_server")
EVERY = 0.5  # seconds between two looks
LATE = 3.0  # seconds until the main thread, which may be waiting inside of Ray, is not waited for any more
GOES_ON = "what is written stays, and the same command goes on"


@contextlib.contextmanager
def watched(local: bool) -> Iterator[None]:
    """Inside, Ray's end is a JobError. local: it was started here, so its processes are watched."""
    from ray.exceptions import RayError, RayTaskError

    stop = threading.Event()
    if local:
        threading.Thread(target=_watch, args=(stop,), name="ray", daemon=True).start()
    try:
        yield
    except Ended as e:
        raise e.error from None
    except RayError as e:
        if isinstance(e, RayTaskError):  # an error of ours, which keeps its traceback
            raise
        raise JobError(f"Ray broke down ({brief(e)}); {GOES_ON}") from e
    finally:
        stop.set()


def _watch(stop: threading.Event) -> None:
    while not stop.wait(EVERY):
        if names := dead_services():
            error = JobError(f"Ray's {names[0]} was killed, or ended for want of memory; {GOES_ON}")
            end(error)
            if not stop.wait(LATE):  # Ray may end this process before that thread can say anything
                print(f"levit-batch: {error}", file=sys.stderr, flush=True)
            return


def dead_services() -> list[str]:
    """The services of the Ray started here that are no more. A Ray of other internals tells of none."""
    processes = getattr(inside("ray._private.worker:_global_node"), "all_processes", {})
    return [name for name in SERVICES for one in processes.get(name, ()) if one.process.poll() is not None]


def shut_down() -> None:
    """Leave Ray; what is left of one that has ended cannot be asked, and is killed."""
    import ray

    if dead_services():
        inside("ray._private.worker:_global_node").kill_all_processes(check_alive=False)
    else:
        ray.shutdown()
