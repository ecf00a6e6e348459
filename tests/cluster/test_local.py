import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from ray._private.node import Node

from pipelines.cluster import local as local_ray
from pipelines.cluster import supervise
from pipelines.cluster.local import NEEDLESS, silently

# The scripts that Ray's processes run, for as long as a session of ours lasts, and what a task in it answers.
SESSION = """
import sys, time
from pathlib import Path
import psutil, ray
from levit_batch.job.config import ComputeConfig
from pipelines.cluster.session import ray_session
with ray_session(ComputeConfig(), verbose=sys.argv[1] == "verbose"):
    answer = ray.get(ray.remote(lambda: 41 + 1).remote())
    words = [word for process in psutil.Process().children(recursive=True) for word in process.cmdline()]
    ray.remote(lambda: 1 / 0).remote()  # nobody asks how that went, as Ray Data does not ask its statistics
    time.sleep(1)
    print("as Ray prints")
    (raylet,) = (process for process in psutil.Process().children() if process.name() == "raylet")
    print("memory monitor every", raylet.environ()["RAY_memory_monitor_refresh_ms"], "ms")
    found = sorted({Path(word).name for word in words if word.endswith((".py", "raylet"))})
print(answer, *found)
"""
HELPERS = {"monitor.py", "log_monitor.py", "dashboard.py"}


def processes(how: str) -> set[str]:
    ended = subprocess.run([sys.executable, "-c", SESSION, how], capture_output=True, text=True, check=True)
    answer, *scripts = ended.stdout.split()
    assert answer == "42", "and nothing else on standard output, where a command's JSON goes"
    assert how == "verbose" or ended.stderr == "as Ray prints\nmemory monitor every 0 ms\n"
    return set(scripts)


def test_a_local_ray_has_only_what_it_needs():
    found = processes("silent")
    assert "raylet" in found and not found & HELPERS


def test_a_verbose_one_has_what_shows_its_logs():
    assert "log_monitor.py" in processes("verbose")


@pytest.mark.parametrize("local", (True, False))
def test_ray_is_itself_again_afterwards(local):
    before = [getattr(Node, name) for name in NEEDLESS]
    with silently(local):
        assert ([getattr(Node, name) for name in NEEDLESS] == before) is not local
    assert [getattr(Node, name) for name in NEEDLESS] == before


# What is used inside Ray. Where a newer one has it no more, a job works all the same, but slower or louder, or hangs when
# all replicas are lost: mend it.
USED = [
    *(f"ray._private.node:Node.{name}" for name in (*NEEDLESS, "kill_all_processes")),
    "ray._private.utils:set_sigterm_handler",
    "ray._private.worker:_global_node",
    "ray.data._internal.execution.execution_callback:ExecutionCallback.on_execution_step",
    "ray.data._internal.execution.interfaces.physical_operator:PhysicalOperator.get_autoscaling_actor_pools",
    "ray._raylet:GcsClient",
    "ray.experimental.internal_kv:internal_kv_get_gcs_client",
    "ray.job_submission:JobSubmissionClient._do_request",
]


@pytest.mark.parametrize("name", USED)
def test_this_ray_has_what_is_used_of_its_inside(name):
    assert not isinstance(local_ray.inside(name), SimpleNamespace)


def test_a_ray_with_other_names_keeps_its_ways_and_works(monkeypatch):
    real = local_ray.inside
    for hidden in ("ray._private.node:Node", "ray._private.utils", "ray._private.worker:_global_node"):
        assert not isinstance(real(hidden), SimpleNamespace)
    monkeypatch.setattr(local_ray, "inside", lambda name: real(f"{name}_of_another_ray"))
    before = [getattr(Node, name) for name in NEEDLESS]
    with silently(True), local_ray.sigterm_kept():
        assert [getattr(Node, name) for name in NEEDLESS] == before
    local_ray.end_at_once()


def test_a_ray_with_other_names_is_not_supervised(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray.data._internal.execution.execution_callback", None)
    spec = importlib.util.find_spec("pipelines.cluster.supervise")
    other = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(other)  # beside the real one
    context = SimpleNamespace(custom_execution_callback_classes=[])
    other.supervise(context, local=True)
    assert context.custom_execution_callback_classes == []
    for local, one in ((True, supervise.LocalSupervisor), (False, supervise.Supervisor), (False, supervise.Supervisor)):
        supervise.supervise(context, local)
        assert context.custom_execution_callback_classes == [one]
    supervise.Supervisor().on_execution_step(SimpleNamespace())


@pytest.mark.parametrize(
    ("started", "dead", "pending", "cluster", "local"),
    [(0, 0, 2, False, True), (2, 2, 0, True, True), (2, 1, 0, False, False), (1, 0, 1, False, False), (0, 0, 0, False, False)],
)
def test_pending_replicas_are_waited_for_on_a_cluster_only(started, dead, pending, cluster, local):
    """A cluster may have to find a node for them first."""
    pool = SimpleNamespace(
        num_running_actors=lambda: started, num_restarting_actors=lambda: dead, num_pending_actors=lambda: pending
    )
    assert supervise.Supervisor.waits(pool) is cluster and supervise.LocalSupervisor.waits(pool) is local


def test_no_folder_stays_of_a_run_that_ended_and_only_its_own_of_one_that_was_killed():
    code = SESSION.replace('print("as', 'os.kill(os.getpid(), signal.SIGKILL) if sys.argv[2:] else print("as')
    root = Path(tempfile.mkdtemp(prefix="lb"))  # a short path: Ray's sockets lie below it
    env = os.environ | {"RAY_TMPDIR": str(root)}
    try:
        killed = subprocess.run([sys.executable, "-c", "import os, signal" + code, "silent", "x"], env=env)
        assert killed.returncode == -signal.SIGKILL
        (dead,) = (folder for folder in (root / "ray").iterdir() if folder.is_dir() and not folder.is_symlink())
        strange, busy = root / "ray/session_of_somebody", root / "ray/session_of_another_run"
        for folder in (strange, busy):
            folder.mkdir()
        with open(busy / local_ray.MARK, "w") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            subprocess.run([sys.executable, "-c", SESSION, "silent"], env=env, check=True)
            left = {folder for folder in (root / "ray").iterdir() if folder.is_dir() and not folder.is_symlink()}
        assert left == {strange, busy} and dead not in left
    finally:
        shutil.rmtree(root)
