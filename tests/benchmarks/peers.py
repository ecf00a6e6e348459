"""`levit-batch run` beside what people would otherwise use, and beside the bound: same images, model and machine, in turn.

    python -m tests.benchmarks.peers [--model 128S] [--images 2000] [--rounds 3] [--only ours bound ...] [--json FILE]

Each peer is a process that labels every image and writes top-5 and embedding as Parquet where it can (transformers'
pipeline gives no embedding). It prints one JSON line {"rows", "time"} each time that rows are done; from those come
images a second in steady state (from the first line to the last, for each worker where the lines name one) and the start-up (from
the command to the first line). Memory is the largest sum of the proportional set sizes of the process and all its children.
Medians over the rounds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from tests.benchmarks.images import write_shards

OURS = ("ours", "ours bf16")
PEERS = {
    "ours": ["ours", "float32"],
    "ours bf16": ["ours", "bfloat16"],
    "bound": ["tests.benchmarks.bound", "float32"],
    "bound bf16": ["tests.benchmarks.bound", "bfloat16"],
    "transformers pipeline": ["tests.benchmarks.peer_pipeline", "0"],
    "transformers pipeline, 2 workers": ["tests.benchmarks.peer_pipeline", "2"],
    "DataLoader": ["tests.benchmarks.peer_dataloader"],
    "Ray Data template": ["tests.benchmarks.peer_ray"],
    "Daft class UDF": ["tests.benchmarks.peer_daft"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="128S")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--shards", type=int, default=5)
    parser.add_argument("--chunk-rows", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir(), "levit-batch-benchmark"))
    parser.add_argument("--json", type=Path, help="write every round's figures here")
    args = parser.parse_args()
    images, checkpoint = prepare(args.data, args.model, args.images, args.shards)
    found: dict[str, list[dict]] = {name: [] for name in args.only}
    for _ in range(args.rounds):
        for name in args.only:
            with tempfile.TemporaryDirectory(dir=args.data) as folder:
                command = command_of(name, images, checkpoint, Path(folder), args.chunk_rows)
                found[name].append(measure(command, args.images, Path(folder) if name in OURS else None))
            print(f"{name}: {found[name][-1]}", file=sys.stderr, flush=True)
    if args.json:
        args.json.write_text(json.dumps({"arguments": vars(args), "found": found}, default=str, indent=1))
    Console().print(table(args.model, {name: median(rounds) for name, rounds in found.items()}))


def prepare(data: Path, model: str, images: int, shards: int) -> tuple[Path, Path]:
    """The shards and a random checkpoint that tells images apart, made once."""
    from tests.support.models import TINY, signal_model

    folder, checkpoint = data / f"images-{images}-{shards}", data / f"checkpoint-{model}"
    write_shards(folder, images, shards)
    if not (checkpoint / "model.safetensors").exists():
        signal_model(TINY if model == "tiny" else model).save_pretrained(checkpoint)
    return folder, checkpoint


def command_of(name: str, images: Path, checkpoint: Path, output: Path, chunk_rows: int) -> list[str]:
    module, *values = PEERS[name]
    if module == "ours":
        sections = {
            "source": {"path": str(images)},
            "model": {"checkpoint": str(checkpoint), "dtype": values[0]},
            "output": {"path": str(output / "out")},
            "compute": {"chunk_rows": chunk_rows, "engine": "ray"},
        }
        (output / "job.yaml").write_text(json.dumps(sections))  # JSON is YAML
        return [sys.executable, "-m", "pipelines.cli", "run", str(output / "job.yaml")]
    bound = ["--chunk-rows", str(chunk_rows), "--dtype"]
    options = {"tests.benchmarks.bound": bound, "tests.benchmarks.peer_pipeline": ["--workers"]}.get(module, [])
    return [sys.executable, "-m", module, str(images), str(checkpoint), str(output), *options, *values]


def measure(command: list[str], images: int, output: Path | None) -> dict[str, float]:
    """One run of a peer. With `output`, rows are done when the chunk files there say so, else when a line is printed."""
    began = time.time()
    environment = os.environ | {"TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    tree = Tree()
    watcher = threading.Thread(target=tree.watch, args=(process.pid,), daemon=True)
    watcher.start()
    out, err = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{err[-4000:]}")
    events = chunk_events(output) if output else line_events(out)
    done = sum(event.rows for event in events)
    if done != images:
        raise SystemExit(f"{' '.join(command)} labelled {done} of {images} images")
    found = figures(events, began)
    cpu = tree.cpu_between(min(events).time, max(events).time)
    found["cpu_ms_per_image"] = 1000 * cpu / max(1, done - min(events).rows)
    return found | {"wall": time.time() - began, "memory": tree.peak}


class Event(NamedTuple):
    """Rows that a worker has done, and when (epoch seconds)."""

    time: float
    rows: int
    worker: int = 0


def figures(events: list[Event], began: float) -> dict[str, float]:
    """events: in any order. The rate is the sum of the workers' own, each from its first event to its last: they start and
    end apart, which a short run would count as lost time and a long one does not notice."""
    workers = {event.worker for event in events}
    rate = sum(own_rate(sorted(event for event in events if event.worker == worker)) for worker in workers)
    return {"images_per_second": rate, "start_up": min(events).time - began}


def own_rate(events: list[Event]) -> float:
    took = events[-1].time - events[0].time
    return sum(event.rows for event in events[1:]) / took if took else 0.0


def line_events(out: str) -> list[Event]:
    lines = [json.loads(line) for line in out.splitlines() if line.startswith('{"rows"')]
    return [Event(line["time"], line["rows"], line.get("worker", 0)) for line in lines]


def chunk_events(output: Path) -> list[Event]:
    from levit_batch.storage.place import place
    from levit_batch.table.write import read_record

    records = [read_record(place(str(file))) for file in output.glob("out/data/*/*.parquet")]
    return [Event(record["ended"], record["rows"], record["pid"]) for record in records]


# Seconds, fewer at first: adding up a process's pages takes milliseconds of a core that the peer needs.
MEMORY_EVERY = 3.0


class Tree:
    """What a process and all its children use, looked at twice a second until it ends. peak: bytes of memory."""

    def __init__(self):
        self.began = time.monotonic()
        self.peak = 0
        self.looked = 0.0
        self.used: dict[int, float] = {}  # CPU seconds of each process so far
        self.totals: list[tuple[float, float]] = []  # (epoch seconds, CPU seconds of all)

    def watch(self, pid: int) -> None:
        try:
            root = psutil.Process(pid)
            while root.status() != psutil.STATUS_ZOMBIE:
                self._look(root)
                time.sleep(0.5)
        except psutil.NoSuchProcess:
            return

    def _look(self, root: psutil.Process) -> None:
        now = time.monotonic()
        memory, due = 0, now - self.looked > min(MEMORY_EVERY, (now - self.began) / 4)
        self.looked = now if due else self.looked
        for process in [root, *root.children(recursive=True)]:
            try:
                memory += pss(process.pid) if due else 0
                spent = process.cpu_times()
                self.used[process.pid] = spent.user + spent.system
            except (psutil.Error, OSError):
                continue
        self.peak = max(self.peak, memory)
        self.totals.append((time.time(), sum(self.used.values())))

    def cpu_between(self, first: float, last: float) -> float:
        """CPU seconds between two times, interpolated: unlike the rate, hardly touched by what else the machine does."""
        times, totals = zip(*(self.totals or [(0.0, 0.0)]), strict=True)
        return float(np.interp(last, times, totals) - np.interp(first, times, totals))


def pss(pid: int) -> int:
    """Bytes of a process's memory, of what it shares only its part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def median(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(found[key] for found in rounds) for key in rounds[0]}


def table(model: str, found: dict[str, dict[str, float]]) -> Table:
    result = Table(title=f"LeViT {model}, medians; ratio: ours to it, in its dtype")
    for column in ("", "images/s", "ratio", "CPU ms/image", "start-up s", "whole run s", "memory GB"):
        result.add_column(column, justify="left" if not column else "right")
    for name, row in found.items():
        own = found.get("ours bf16" if name.endswith("bf16") else "ours")
        ratio = f"{own['images_per_second'] / row['images_per_second']:.2f}" if own and row["images_per_second"] else ""
        numbers = [f"{row['images_per_second']:.0f}", ratio]
        numbers += [f"{row[key]:.1f}" for key in ("cpu_ms_per_image", "start_up", "wall")]
        result.add_row(name, *numbers, f"{row['memory'] / 1e9:.2f}")
    return result


if __name__ == "__main__":
    main()
