"""How long a small job takes from the command to its first labelled row, and to its end, and what it waits for.

    python -m tests.benchmarks.start [CONFIG] [--rounds 5] [--engines local ray]

The demo by default, whose 899 rows are eight chunks, labelled again and again; the first round, which reads the disk, does not
count. Then each cause by itself: what is imported, in an interpreter of its own. Of all rounds the fastest and the middle one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path

from tests.support import ROOT
from tests.support.jobs import COMMAND

CAUSES = {
    "interpreter": "",
    "the command, and a run until it looks at its source": "pipelines.cli, pipelines.commands.run, pipelines.label.run",
    "torch": "torch",
    "what a replica imports, torch with it": "pipelines.label.nursery, " + "pipelines.label.decoder, pipelines.label.watch, "
    "levit_batch.inference.predict, levit_batch.inference.fold",
    "OpenVINO": "openvino",
    "Ray": "ray",
    "Ray Data": "ray.data",
    "page and card (matplotlib)": "levit_batch.results.evaluate",
}
RAY = "import ray; ray.init(include_dashboard=False, log_to_driver=False, logging_level=50)"


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
    print("\nseconds of one interpreter that imports")
    for name, modules in CAUSES.items():
        show(name, [timed(f"import {modules}" if modules else "pass") for _ in range(args.rounds + 1)][1:])
    show("Ray, and starts its processes and ends them", [timed(RAY) for _ in range(args.rounds + 1)][1:])


def run(config: str, engine: str) -> dict[str, float]:
    """One job: the seconds from its command until each of its moments."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ["--set", f"output.path={folder}/out", "--set", f"compute.engine={engine}"]
        since = time.time()
        subprocess.run([*COMMAND, "run", config, *settings], cwd=ROOT, env=ENV, check=True, capture_output=True)
        end = time.time() - since
        record = json.loads(next(Path(folder, "out/runs").glob("*.json")).read_text())
    begun, recorded = (datetime.fromisoformat(record[name]).timestamp() - since for name in ("started", "ended"))
    return {
        "the run begins": begun,
        "the first chunk is labelled": begun + record["seconds_to_first_chunk"],
        "the last chunk is labelled": recorded,
        "page and card are written, and the command has ended": end,
    }


def timed(code: str) -> float:
    since = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"{code}; import os; os._exit(0)"], cwd=ROOT, env=ENV, check=True, capture_output=True)
    return time.perf_counter() - since


def show(name: str, seconds: list[float]) -> None:
    print(f"  {name:55}{min(seconds):6.2f} at the least {statistics.median(seconds):6.2f} in the middle")


ENV = os.environ | {"PYTHONPATH": str(ROOT)}

if __name__ == "__main__":
    main()
