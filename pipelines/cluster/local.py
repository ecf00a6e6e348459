"""Ray that says nothing of itself, and, started for one job on one machine, without what that job does not need; it leaves
neither a folder nor a process behind, and ends when its job ends it, not before.

Ray has no settings for some of that, so names inside Ray are used here. A Ray that has others keeps its ways and works all the
same; a test tells.
"""

import contextlib
import fcntl
import logging
import math
import os
import pkgutil
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pipelines.interrupt import SIGNALS, heard_again

if TYPE_CHECKING:
    import psutil

QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TQDM": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    # What nobody looks at without a dashboard, and probes of threads that are seldom busy: a hundredth of a core.
    "RAY_enable_metrics_collection": "0",
    "RAY_io_context_monitor_probe_interval_ms": "10000",
    # A traceback every five seconds once Ray Data's own statistics are killed for memory; each result of ours is asked for.
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ side warns about how Ray Data itself uses it
}
# Methods of Ray's `Node` that start a process each. Without them: 1.3 s of a core at the start, half of it waited for, 180 MB,
# and a hundredth of the speed later.
NEEDLESS = ("start_monitor", "start_api_server", "start_log_monitor")

KILLED_SECONDS = 5.0  # at most, for the kernel to take back what a killed process holds
SHARED = "/dev/shm"
MARK = "levit-batch"  # a file in a session's folder that its run holds locked for as long as it lives


def inside(name: str) -> Any:
    """A module of Ray's, or a name in it; something empty where this Ray has none of that name."""
    with contextlib.suppress(ImportError, AttributeError):
        return pkgutil.resolve_name(name)
    return SimpleNamespace()


@contextlib.contextmanager
def own_folder(session: Path) -> Iterator[None]:
    """The folder `session` of a Ray that was started here goes at the end; those of runs that were killed go now."""
    for mark in session.parent.glob(f"session_*/{MARK}"):
        _remove_dead(mark)
    fd, made = tempfile.mkstemp(dir=session)
    fcntl.flock(fd, fcntl.LOCK_EX)  # the kernel lets go when this process ends, however it ends
    os.rename(made, session / MARK)  # not before it is locked
    try:
        yield
    finally:
        shutil.rmtree(session, ignore_errors=True)
        os.close(fd)


def _remove_dead(mark: Path) -> None:
    """Remove the session of `mark` if it is this user's and its run is no more."""
    with contextlib.suppress(OSError):  # another run was faster
        if mark.parent.is_symlink() or mark.parent.stat().st_uid != os.geteuid():
            return
        with open(mark) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(mark.parent)


def slow_store(store: float) -> str | None:
    """Why objects in a Ray that was started here lie on a disk, in a line; None where they lie in memory. store: its bytes."""
    if sys.platform != "linux" or (room := shutil.disk_usage(SHARED).free) >= store:
        return None
    return (
        f"{SHARED} has room for {room / 1e9:.2g} GB, Ray's object store takes {store / 1e9:.2g} GB: it is on a disk, and decoded "
        f"pixels pass through it; make {SHARED} larger (Docker: --shm-size={math.ceil(1.1 * store / 1e9)}g)"
    )


@contextlib.contextmanager
def silently(local: bool) -> Iterator[None]:
    """A Ray that is joined, or started here (`local`), inside says nothing of itself, then or later."""
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    for name in ("ray", "ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with _hushed(), _without_helpers() if local else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _without_helpers() -> Iterator[None]:
    """A Ray that is started inside has no autoscaler, no API server (which also without a dashboard is started) and no log
    monitor."""
    Node = inside("ray._private.node:Node")
    kept = {name: getattr(Node, name) for name in NEEDLESS if hasattr(Node, name)}
    for name in kept:
        setattr(Node, name, lambda node, **options: None)
    try:
        yield
    finally:
        for name, method in kept.items():
            setattr(Node, name, method)


@contextlib.contextmanager
def sigterm_kept() -> Iterator[None]:
    """`ray.init` inside leaves SIGTERM alone; else that would end this process in silence, by SystemExit."""
    utils = inside("ray._private.utils")
    kept = getattr(utils, "set_sigterm_handler", None)  # where its name is another: `deferred` puts back what Ray sets
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = kept


@contextlib.contextmanager
def deaf() -> Iterator[None]:
    """Processes that are started inside never hear of `SIGNALS`: what ends a whole process group or cgroup at once (a scheduler,
    `timeout`, a terminal that is closed) would end Ray below its driver, which then ends without a record, in the midst of it.
    """
    kept = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # a child inherits it, Ray's services hand it on to their workers
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, kept)


def end_at_once() -> None:
    """`ray.shutdown` kills the Ray that was started here, replicas and all, and does not ask it first: it is deaf (a second a
    process). A Ray with other internals is asked, and ends some seconds later."""
    node = inside("ray._private.worker:_global_node")
    kill = getattr(node, "kill_all_processes", None)
    if kill is None or not hasattr(node, "all_processes"):
        return
    import psutil  # Ray's own copy

    def kill_all(**options) -> None:
        heard_again()  # Ray's C++ has just left SIGTERM to the system, which would end this process
        services = [info.process.pid for infos in node.all_processes.values() for info in infos]
        workers = [child for pid in services for child in _children(pid)]
        kill(**options | {"allow_graceful": False})
        for worker in workers:
            with contextlib.suppress(psutil.Error):
                worker.kill()
        deadline = time.monotonic() + KILLED_SECONDS
        while any(map(alive, workers)) and time.monotonic() < deadline:
            time.sleep(0.005)

    node.kill_all_processes = kill_all


def _children(pid: int) -> list["psutil.Process"]:
    import psutil

    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def alive(process: "psutil.Process") -> bool:
    """Unlike psutil's own question: a process that is dead, and only waits for init to take note of it, runs no more."""
    import psutil

    with contextlib.suppress(psutil.Error):
        return process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return False


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Without what C code says on standard error: Ray's core tells there that it was told to be quiet."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
