"""A small job without Ray, whose start would take longer than the job: the same replicas, in processes of this machine.

As with Ray, a replica that dies is replaced, and its chunks begin again: `levit_batch.table.attempts` counts. See nursery.py.
"""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, Pipe, wait
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from levit_batch.errors import ConfigError, JobError
from levit_batch.job.chunks import Chunk
from levit_batch.job.config import ComputeConfig
from levit_batch.results.page.formats import plural
from pipelines.cluster.local import KILLED_SECONDS, deaf
from pipelines.cluster.sizing import Capacity, Nodes, size_for
from pipelines.interrupt import deferred

if TYPE_CHECKING:
    from levit_batch.inference.runnable import Runnable
    from pipelines.label.prepare import Prepared
    from pipelines.label.record import RunRecord
    from pipelines.label.work import Work

FEW = 32  # chunks that are labelled in the time that Ray takes to start, or in a few minutes at the most
IN_FLIGHT = 2  # chunks that a replica has, as with Ray
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # a replica a core; and a fork takes no others along
QUOTA = Path("/sys/fs/cgroup/cpu.max")


def runs_here(compute: ComputeConfig, gpu: bool, chunks: int) -> bool:
    """Whether so many chunks are labelled without Ray. Raises ConfigError where that is asked for and cannot be."""
    if compute.engine == "ray":
        return False
    if compute.address or gpu or compute.decode_cpus != "auto" or sys.platform != "linux":
        if compute.engine == "local":
            raise ConfigError(
                "compute.engine: local is for CPUs of this one Linux machine, without compute.address or decode_cpus; use auto"
            )
        return False
    return compute.engine == "local" or chunks <= FEW


def cpus() -> int:
    """What this process may use: the CPUs that it is bound to, and no more than its control group's quota (a container's)."""
    bound = len(os.sched_getaffinity(0))
    with contextlib.suppress(OSError, ValueError):  # no such file, or no quota: "max"
        quota, period = map(int, QUOTA.read_text().split())
        return max(1, min(bound, quota // period))
    return bound


class Nursery:
    """The process that replicas come from, for as long as the context lasts."""

    def __init__(self, verbose: bool):
        self.stderr = None if verbose else subprocess.DEVNULL
        self.pipes: list[Connection] = []

    def __enter__(self) -> "Nursery":
        path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), *filter(None, sys.path)])
        command = [sys.executable, "-W", "ignore::DeprecationWarning", "-m", "pipelines.label.nursery"]
        with deferred(), deaf():
            self.pipe, theirs = Pipe()
            with theirs:
                self.process = subprocess.Popen(
                    [*command, str(theirs.fileno())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self.stderr,
                    env=ONE_THREAD | os.environ | {"PYTHONPATH": path},
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        return self

    def __exit__(self, *_: object) -> None:
        """All at once, in the midst of it; they are gone when this returns."""
        with contextlib.suppress(ProcessLookupError):  # somebody was faster
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in self.pipes:
            with contextlib.suppress(OSError, EOFError):
                while pipe.poll(KILLED_SECONDS):
                    pipe.recv_bytes()
            pipe.close()
        self.pipe.close()

    def take(self, model: "Runnable", work: "Work") -> None:
        """What every replica runs, and knows of the job."""
        with self.needed():
            self.pipe.send_bytes(pickle.dumps(model, pickle.HIGHEST_PROTOCOL))
            self.pipe.send_bytes(pickle.dumps(work))

    def replica(self) -> Connection:
        ours, theirs = Pipe()
        with theirs, self.needed():
            send_handle(self.pipe, theirs.fileno(), self.process.pid)
        self.pipes.append(ours)
        return ours

    @contextlib.contextmanager
    def needed(self) -> Iterator[None]:
        try:
            yield
        except OSError as e:
            raise JobError(
                "the process that replicas come from has ended: run again, see what it says (--verbose), or set "
                "compute.engine=ray"
            ) from e


class LocalExecution:
    """The chunks of one run on their way through replicas of this machine."""

    def __init__(self, prepared: "Prepared", run: "RunRecord", work: "Work", say: Callable[[str], None]):
        self.compute, self.run, self.nursery, self.say = prepared.config.compute, run, prepared.nursery, say
        self.held: dict[Connection, list[Chunk]] = {}  # by each replica
        self.ready: set[Connection] = set()
        self.nursery.take(prepared.runnable, work)
        prepared.forget_model()

    def records(self, chunks: list[Chunk]) -> Iterator[dict[str, Any]]:
        """A record of each of `chunks` as it is finished or has failed; those of a replica that dies begin again in another."""
        size = size_for(self.compute, False, len(chunks), Capacity((Nodes({"CPU": cpus()}),)))
        if self.run.size is None:
            among = plural(size.replicas[1], "process", "processes")
            self.say(f"without Ray: {plural(len(chunks), 'chunk')} in {among} here (compute.engine=ray is with it)")
        self.run.size = self.run.size or size
        todo = deque(chunks)
        while todo or any(self.held.values()):
            while todo and len(self.held) < size.replicas[1]:
                self.held[self.nursery.replica()] = []
            self.hand_out(todo)
            for pipe in wait(list(self.held)):
                yield from self.hear(pipe, todo)

    def hand_out(self, todo: deque[Chunk]) -> None:
        """Each replica has up to `IN_FLIGHT`; one each, before any has two."""
        for most in range(1, IN_FLIGHT + 1):
            for pipe, held in self.held.items():
                if todo and len(held) < most:
                    held.append(todo.popleft())
                    with contextlib.suppress(OSError):  # it has just died, and is heard next
                        pipe.send_bytes(pickle.dumps(held[-1]))

    def hear(self, pipe: Connection, todo: deque[Chunk]) -> Iterator[dict[str, Any]]:
        """What a replica has to say. A death gives its chunks back."""
        try:
            told = pipe.recv_bytes()
        except (EOFError, OSError):
            todo.extendleft(reversed(self.held.pop(pipe)))
            if pipe not in self.ready:
                raise JobError(
                    "a replica died before it began; look for memory that runs out (the system's log), run with fewer "
                    "compute.replicas, or see what it says: --verbose"
                ) from None
            return
        if pipe not in self.ready:
            if told:
                raise RuntimeError(told.decode())
            self.ready.add(pipe)
            return
        record = json.loads(told)
        self.held[pipe] = [chunk for chunk in self.held[pipe] if str(chunk) != record["chunk"]]
        yield record
