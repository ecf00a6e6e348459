"""How long a small job takes from the command to its first labelled row, and to its end, and what it waits for.

    python -m tests.benchmarks.start [CONFIG] [--rounds 5] [--engines local ray]

The demo by default, whose 899 rows are eight chunks, labelled again and again; the first round, which reads the disk, does not
count. Then each cause by itself: what is imported, in an interpreter of its own. Of all rounds the fastest and the middle one; by
the clock, and in seconds of the processors, which hardly change where much else runs besides.
"""

import argparse
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import psutil

from pipelines.label.nursery import USED
from tests.support import ROOT
from tests.support.jobs import COMMAND

CAUSES = {
    "interpreter": "",
    "the command, and a run until it looks at its source": "pipelines.cli, pipelines.commands.run, pipelines.label.run",
    "torch": "torch",
    "what a replica imports, torch with it": "pipelines.label.nursery, " + ", ".join(USED),
    "OpenVINO": "openvino",
    "Ray": "ray",
    "Ray Data": "ray.data",
    "page and card (matplotlib)": "levit_batch.results.evaluate",
}
LOOK_EVERY = 0.02
NOWHERE = subprocess.DEVNULL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="configs/demo.yaml")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", nargs="+", default=["local", "ray"])
    args = parser.parse_args()
    for engine in args.engines:
        rounds = [run(args.config, engine) for _ in range(args.rounds + 1)][1:]
        print(f"{engine}: seconds from the command until")
        for name in rounds[0]:
            show(name, [told[name] for told in rounds])
    print("\nseconds by the clock, and of the processors, of one interpreter that imports")
    for name, modules in CAUSES.items():
        clock, spent = zip(*(timed(f"import {modules}" if modules else "pass") for _ in range(args.rounds + 1)), strict=True)
        show(name, clock[1:], spent[1:])


def run(config: str, engine: str) -> dict[str, float]:
    """One job: the seconds from its command until each of its moments."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--set", f"output.path={folder}/out", "--set", f"compute.engine={engine}"]
        since = time.time()
        process = subprocess.Popen([*COMMAND, "run", config, *settings], cwd=ROOT, env=ENV, stdout=NOWHERE, stderr=NOWHERE)
        spent = processor_seconds(process)
        end = time.time() - since
        record = json.loads(next(Path(folder, "out/runs").glob("*.json")).read_text())
    begun, recorded = (datetime.fromisoformat(record[name]).timestamp() - since for name in ("started", "ended"))
    return {
        "the run begins": begun,
        "the first chunk is labelled": begun + record["seconds_to_first_chunk"],
        "the last chunk is labelled": recorded,
        "page and card are written, and the command has ended": end,
        "seconds of the processors": spent,
    }


def processor_seconds(process: subprocess.Popen) -> float:
    """Of a command and all that it starts, replicas that nobody waits for, too: looked at until it ends."""
    spent: dict[int, float] = {}
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        while root.status() != psutil.STATUS_ZOMBIE:
            for member in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    times = member.cpu_times()
                    spent[member.pid] = times.user + times.system
            time.sleep(LOOK_EVERY)
    assert process.wait() == 0
    return sum(spent.values())


def timed(code: str) -> tuple[float, float]:
    """Seconds by the clock, and of the processors, of an interpreter that runs `code`."""
    since, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"{code}; import os; os._exit(0)"], cwd=ROOT, env=ENV, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - since, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def show(name: str, *kinds: Sequence[float]) -> None:
    figures = "  ".join(f"{min(seconds):6.2f} at the least {statistics.median(seconds):6.2f} in the middle" for seconds in kinds)
    print(f"  {name:55}{figures}")


ENV = os.environ | {"PYTHONPATH": str(ROOT)}

if __name__ == "__main__":
    main()
