"""A day of nights, one a minute, in one process: does anything grow that should not?

python -m tests.benchmarks.leaks --nights 1440

The product without Ray and pages (`tests/support/nights_engine.py`); every tenth night finds changes, the others nothing.
Told at the first look, when all is warm, and at the last: resident memory, objects, open files, threads, what the process has of
/dev/shm, entries of its temporary folder, files of the output besides its runs.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.benchmarks.nights import ready

WARM, CHANGES = 200, 10  # nights until the first look; nights from one change to the next
MORE = {"memory": 30e6, "objects": 5_000, "files": 0, "threads": 0, "shm": 0, "temporary": 0, "output": 0}  # that may be


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=1440)
    arguments = parser.parse_args()
    with ready("leaks-") as (engine, folder), pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder / "temporary"))
        os.mkdir(tempfile.tempdir)
        return nights(engine, folder, patch, arguments.nights)


def nights(engine: Any, folder: Path, patch: pytest.MonkeyPatch, count: int) -> int:
    from tests.support.fault_commands import FIRST, SECOND, Run

    command = Run(engine, folder, "disk", patch)
    since, first = time.monotonic(), {}
    for night in range(count):
        if night % CHANGES == 0:
            command.write_source(SECOND if night // CHANGES % 2 else FIRST)
        assert command.act() == 0
        if night in (WARM, count - 1):
            now = look(command.root)
            print(json.dumps({"night": night + 1, "seconds": round(time.monotonic() - since)} | now), flush=True)
            first = first or now
    grown = {what: now[what] - first[what] for what in MORE if now[what] - first[what] > MORE[what]}
    print("grown:", grown or "nothing")
    return 1 if grown else 0


def look(output: str) -> dict[str, int]:
    gc.collect()
    process = psutil.Process()
    outside = [name for name in os.listdir(output) if name != "runs"]
    return {
        "memory": process.memory_info().rss, "objects": len(gc.get_objects()), "files": process.num_fds(),
        "threads": threading.active_count(), "shm": Path("/proc/self/maps").read_text().count(" /dev/shm"),
        "temporary": len(os.listdir(tempfile.gettempdir())),
        "output": sum(len(files) for name in outside for *_, files in os.walk(os.path.join(output, name))),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
