"""Ray's end is told in a line; an error of ours that came through Ray keeps its traceback. (Its processes: label/test_run.py.)"""

import json
import signal
import threading

import pytest
from ray.exceptions import RaySystemError, RayTaskError

from levit_batch.errors import JobError
from levit_batch.job.load import load_config
from pipelines.cluster import supervise
from pipelines.cluster.services import dead_services, watched
from pipelines.interrupt import end, interruptible
from pipelines.label.run import run_job
from tests.support import ROOT, SUPPORT


def test_what_ray_says_of_its_end_is_one_line_and_a_bug_stays_a_bug():
    with pytest.raises(JobError, match=r"^Ray broke down \(.*\); what is written stays, and the same"), watched(False):
        raise RaySystemError("The node\nhas died.")
    with pytest.raises(RayTaskError), watched(False):
        raise RayTaskError("work", "traceback", ValueError("a bug"))
    with pytest.raises(KeyboardInterrupt), watched(False):
        raise KeyboardInterrupt


def test_without_a_ray_of_our_own_nothing_has_died():
    assert dead_services() == []


@pytest.fixture
def told():
    """Signals as they are in a command."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    interruptible()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_service_that_dies_ends_the_job(told, monkeypatch):
    monkeypatch.setattr("pipelines.cluster.services.dead_services", lambda: ["raylet"])
    with pytest.raises(JobError, match="^Ray's raylet was killed, or .*; what is written stays"), watched(True):
        threading.Event().wait(30)


def test_who_does_not_end_is_told_all_the_same(monkeypatch, capsys):
    monkeypatch.setattr("pipelines.cluster.services.dead_services", lambda: ["gcs_server"])
    monkeypatch.setattr("pipelines.cluster.services.LATE", 0.1)
    monkeypatch.setattr("pipelines.cluster.services.end", lambda error: None)  # as where the main thread waits inside of Ray
    with watched(True):
        threading.Event().wait(1.5)
    assert capsys.readouterr().err.startswith("levit-batch: Ray's gcs_server was killed")


def test_another_thread_ends_the_main_one_with_an_error(told):
    with pytest.raises(JobError, match="so it is"), watched(False):
        threading.Thread(target=end, args=(JobError("so it is"),)).start()
        threading.Event().wait(30)


def test_where_no_replica_can_live_the_job_ends_with_what_to_do(tmp_path, monkeypatch):
    """Ray starts a replica that ended at its start again, for ever: as when other programs take the memory."""
    monkeypatch.setattr(supervise, "START_PATIENCE", 6.0)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{SUPPORT}")
    monkeypatch.setenv("DEADLY_START", "1")
    config = load_config("configs/demo.yaml", [f"output.path={tmp_path}", "compute.engine=ray", "compute.chunk_rows=16"])
    with pytest.raises(JobError, match="no replica lived for .* fewer compute.replicas, or see what it says: --verbose"):
        run_job(config)
    assert [json.loads(file.read_text())["state"] for file in (tmp_path / "runs").iterdir()] == ["failed"]
