"""How throughput and memory grow with images and replicas, and what planning and resuming a very large job cost.

    python -m tests.benchmarks.scale [--model 128S] [--images 2000 50000] [--replicas 1 2] [--chunks 100000]

More images are the same shards repeated under other names. The large plan is of 100,000 chunks of one small row group each; for
its resume every chunk file is there (a copy of one real file, whose name says that the chunk is done).
"""

import argparse
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.benchmarks.peers import measure, prepare

PLAN = """
import sys, time
from levit_batch.job.load import load_config
from pipelines.label.prepare import prepare
began = time.time()
prepared = prepare(load_config(sys.argv[1]), False)
chunks = len(prepared.chunks)
took = time.time() - began
# VmHWM, not ru_maxrss: that one starts with what the process had before it became Python.
memory = next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(chunks, took, memory, time.process_time())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="128S")
    parser.add_argument("--images", type=int, nargs="*", default=[2000, 50000])
    parser.add_argument("--replicas", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--chunks", type=int, default=100_000, help="0: leave the large plan out")
    parser.add_argument("--chunk-rows", type=int, default=100)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir(), "levit-batch-benchmark"))
    args = parser.parse_args()
    least = min(args.images, default=0)
    if least:
        images, checkpoint = prepare(args.data, args.model, least, 5)
        for count in args.images:
            for replicas in args.replicas if count == least else args.replicas[-1:]:
                print(json.dumps(grow(args, images, checkpoint, count, least, replicas)), flush=True)
    if args.chunks:
        _, checkpoint = prepare(args.data, args.model, max(least, 10), 5)
        print(json.dumps(large_plan(args.data, checkpoint, args.chunks)), flush=True)


def grow(args: argparse.Namespace, images: Path, checkpoint: Path, count: int, least: int, replicas: int) -> dict:
    """One run on `count` images by `replicas` replicas."""
    with tempfile.TemporaryDirectory(dir=args.data) as folder:
        files = sorted(images.glob("*.parquet"))
        for i in range(count // least):
            for file in files:
                os.link(file, Path(folder, f"{i:05d}-{file.name}"))
        values = {"replicas": replicas, "chunk_rows": args.chunk_rows}
        job = write_job(Path(folder), f"{folder}/*.parquet", checkpoint, values)
        found = measure([sys.executable, "-m", "pipelines.cli", "run", str(job)], count // least * least, Path(folder))
    return {"images": count, "replicas": replicas} | found


def write_job(folder: Path, source: str, checkpoint: Path, compute: dict) -> Path:
    sections = {
        "source": {"path": source},
        "model": {"checkpoint": str(checkpoint)},
        "output": {"path": str(folder / "out")},
        "compute": compute,
    }
    (folder / "job.yaml").write_text(json.dumps(sections))  # JSON is YAML
    return folder / "job.yaml"


def large_plan(data: Path, checkpoint: Path, chunks: int) -> dict[str, float]:
    """Seconds and memory of planning `chunks` chunks, and of running a job of which all of them are done."""
    with tempfile.TemporaryDirectory(dir=data) as name:
        folder = Path(name)
        shards(folder / "images", chunks)
        job = write_job(folder, f"{folder}/images", checkpoint, {"chunk_rows": 1})
        said = subprocess.run([sys.executable, "-c", PLAN, str(job)], capture_output=True, text=True, check=True).stdout
        count, planned, memory, cpu = said.split()
        finish(folder, job)
        before = cpu_of_children()
        began = time.time()
        run = subprocess.run([sys.executable, "-m", "pipelines.cli", "run", str(job), "--json"], capture_output=True)
        took = time.time() - began
        state = json.loads(run.stdout)["run"] if run.returncode == 0 else run.stderr.decode()[-2000:]
        resumed = cpu_of_children() - before
    return {
        "chunks": int(count), "plan_seconds": float(planned), "plan_memory": int(memory), "resume_seconds": took,
        "plan_cpu_seconds": float(cpu), "resume_cpu_seconds": resumed,
        "resume_state": state if isinstance(state, str) else state["state"],
    }  # fmt: skip


def cpu_of_children() -> float:
    """CPU seconds of the processes that were waited for: unlike wall time, hardly touched by what else runs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def shards(folder: Path, chunks: int) -> None:
    """`chunks` rows of one tiny image, a row group each, 1,000 a file."""
    folder.mkdir()
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 60, 20)).save(file, "JPEG")
    cell = {"bytes": file.getvalue(), "path": None}
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    per_file = min(chunks, 1000)
    table = pa.table({"image": pa.array([cell] * per_file, kind)})
    pq.write_table(table, folder / "00000.parquet", row_group_size=1)
    for i in range(1, chunks // per_file):
        shutil.copyfile(folder / "00000.parquet", folder / f"{i:05d}.parquet")


def finish(folder: Path, job: Path) -> None:
    """Every chunk file of the plan, as if the job had run: its first ones by a real run."""
    subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "run", str(job), "--limit", "4"], capture_output=True, check=False
    )
    from levit_batch.job.load import load_config
    from pipelines.label.prepare import prepare as prepare_job

    prepared = prepare_job(load_config(str(job)), False)
    real = next((folder / "out/data").rglob("*/*.parquet"))
    for chunk in prepared.chunks:
        place = Path(prepared.output.chunk_place(chunk).path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            continue
        try:
            os.link(real, place)
        except OSError:  # a file has at most so many names: go on with a copy
            real = Path(shutil.copyfile(real, place))


if __name__ == "__main__":
    main()
