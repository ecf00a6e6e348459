"""Jobs for end-to-end tests: the command as a user runs it, in a process of its own, and the table it leaves."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from levit_batch.table.output import SHARDS
from tests.support import DIGITS, ROOT

COMMAND = [sys.executable, "-m", "pipelines.cli"]
LONG = 240  # seconds; nothing here takes so long unless it hangs


class Job:
    """One configuration in a folder of its own."""

    def __init__(self, folder: Path, checkpoint: Path, **sections: dict[str, Any]):
        self.folder, self.output, self.file = folder, folder / "out", folder / "job.yaml"
        values: dict[str, Any] = {
            "source": {"path": str(DIGITS), "target_column": "label"},
            "model": {"checkpoint": str(checkpoint)},
            "predict": {"top_k": 3},
            "output": {"path": str(self.output)},
            "compute": {"chunk_rows": 64, "replicas": 2},
        }
        for name, section in sections.items():
            values.setdefault(name, {}).update(section)
        folder.mkdir(parents=True, exist_ok=True)
        self.file.write_text(yaml.safe_dump(values))

    def start(self, command: str = "run", *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        """The command in a process group of its own."""
        return subprocess.Popen(
            [*COMMAND, command, str(self.file), *arguments],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | (env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(
        self, command: str = "run", *arguments: str, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        process = self.start(command, *arguments, env=env)
        try:
            out, err = process.communicate(timeout=LONG)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def chunks(self) -> list[Path]:
        return chunk_files(self.output)

    def wait_for_chunks(self, count: int, process: subprocess.Popen[str]) -> None:
        """Until `count` chunks are written by the running command."""
        wait_for(lambda: len(self.chunks()) >= count or process.poll() is not None)
        assert process.poll() is None, process.communicate()

    def table(self) -> pa.Table:
        """The whole output in (shard, row) order."""
        return output_rows(self.output)

    def runs(self) -> list[Path]:
        return sorted((self.output / "runs").glob("*.json"))

    def leftovers(self) -> list[str]:
        """Files and folders that a finished job must not leave."""
        names = [path for path in self.output.rglob("*") if path.name.startswith((".", "_")) and path.name != SHARDS]
        return [str(path.relative_to(self.output)) for path in names]


def chunk_files(output: Path) -> list[Path]:
    """The chunk files that readers of a local output folder see."""
    return sorted(output.glob("data/*/*.parquet"))


def output_rows(output: Path, columns: list[str] | None = None) -> pa.Table:
    """Every row that a job wrote, in (shard, row) order; a row that is there twice is there twice."""
    parts = [pq.read_table(file, columns=columns, partitioning=None) for file in chunk_files(output)]
    return pa.concat_tables(parts).sort_by([("shard", "ascending"), ("row", "ascending")])


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    """What `condition` says as soon as it is true; fails when it never is."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "what was waited for never came"
        time.sleep(0.005)
    return found


def kill_all(process: subprocess.Popen[str]) -> None:
    """`kill -9` of the driver and of everything it started, Ray included."""
    import psutil

    family = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    process.communicate(timeout=60)


def replicas(process: subprocess.Popen[str]) -> list[Any]:
    """The processes of a running job that hold a replica: Ray's workers, or what the nursery has become."""
    import psutil

    found = []
    for member in psutil.Process(process.pid).children(recursive=True):
        try:
            of_nursery = member.ppid() != process.pid and "pipelines.label.nursery" in member.cmdline()
            if of_nursery or "MapWorker" in " ".join(member.cmdline()):
                found.append(member)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found
