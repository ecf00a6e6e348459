import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from ray._private.node import Node

from pipelines.cluster import local as local_ray
from pipelines.cluster.local import NEEDLESS, silently

# The scripts that Ray's processes run, for as long as a session of ours lasts, and what a task in it answers.
SESSION = """
import sys
from pathlib import Path
import psutil, ray
from levit_batch.job.config import ComputeConfig
from pipelines.cluster.session import ray_session
with ray_session(ComputeConfig(), verbose=sys.argv[1] == "verbose"):
    answer = ray.get(ray.remote(lambda: 41 + 1).remote())
    words = [word for process in psutil.Process().children(recursive=True) for word in process.cmdline()]
    print(answer, *sorted({Path(word).name for word in words if word.endswith((".py", "raylet"))}))
"""
HELPERS = {"monitor.py", "log_monitor.py", "dashboard.py"}


def processes(how: str) -> set[str]:
    ended = subprocess.run([sys.executable, "-c", SESSION, how], capture_output=True, text=True, check=True)
    answer, *scripts = next(line for line in ended.stdout.splitlines() if line.startswith("42 ")).split()
    assert how == "verbose" or ended.stderr == ""
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


def test_a_ray_with_other_names_keeps_its_helpers(monkeypatch):
    monkeypatch.setattr(local_ray, "NEEDLESS", ("start_what_no_ray_has",))
    with silently(True):
        assert not hasattr(Node, "start_what_no_ray_has")


def test_no_folder_stays_of_a_run_that_ended_and_only_its_own_of_one_that_was_killed():
    code = SESSION.replace("print(answer", "os.kill(os.getpid(), signal.SIGKILL) if sys.argv[2:] else print(answer")
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
