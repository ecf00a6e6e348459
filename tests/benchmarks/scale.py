"""How throughput and memory grow with images and replicas, and what planning and resuming a very large job cost.

    python -m tests.benchmarks.scale [--model 128S] [--images 2000 50000] [--replicas 1 2] [--chunks 100000] [--s3 0.03 [--named]]

More images are the same shards repeated under other names. The large plan is of 100,000 chunks of one small row group each; for
what follows every chunk's file is there, and empty: planning by a listing, running again by the manifest, and a night of one
new shard read none of them. With `--s3` the output of the large plan lies in an S3 stand-in on loopback that takes so many
seconds for each request; with `--named` the files are not even there, but in the manifest, which counts on a store: the stand-in,
written in Python, cannot list a million.
"""

import argparse
import contextlib
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
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from moto.backends import get_backend
from moto.core import DEFAULT_ACCOUNT_ID
from PIL import Image

from levit_batch.job.load import load_config
from levit_batch.table.manifest import Manifest, read_manifest, write_manifest
from levit_batch.table.read import runs_of
from pipelines.label.prepare import Prepared
from pipelines.label.prepare import prepare as prepare_job
from tests.benchmarks.peers import measure, prepare
from tests.support.s3_server import S3Server

PLAN = """
import sys, time
from levit_batch.job.load import load_config
from pipelines.label.prepare import prepare
began = time.time()
prepared = prepare(load_config(sys.argv[1]), False)
chunks = sum(1 for _ in prepared.chunks)
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
    parser.add_argument("--per-shard", type=int, default=1000, help="chunks of a shard of the large plan")
    parser.add_argument("--chunk-rows", type=int, default=100)
    parser.add_argument("--s3", type=float, metavar="SECONDS")
    parser.add_argument("--named", action="store_true", help="chunk files are named, not made; planning by a listing is left out")
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
        with contextlib.nullcontext() if args.s3 is None else S3Server(args.s3) as s3:
            print(json.dumps(large_plan(args.data, checkpoint, args.chunks, args.per_shard, s3, args.named)), flush=True)


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


def write_job(folder: Path, source: str, checkpoint: Path, compute: dict, output: str = "", kind: str = "parquet") -> Path:
    sections = {
        "source": {"path": source, "type": kind},
        "model": {"checkpoint": str(checkpoint)},
        "output": {"path": output or str(folder / "out")},
        "compute": compute,
    }
    (folder / "job.yaml").write_text(json.dumps(sections))  # JSON is YAML
    return folder / "job.yaml"


def large_plan(
    data: Path, checkpoint: Path, chunks: int, per_shard: int, s3: S3Server | None = None, named: bool = False
) -> dict[str, Any]:
    """Seconds and memory of a table of `chunks` chunks: planning it, running again with nothing to do, a night of one new shard.
    On `s3` also requests.

    Its files are empty, and only named by a manifest: whoever reads one of them fails.
    """
    with tempfile.TemporaryDirectory(dir=data) as name:
        folder, told = Path(name), {"chunks": chunks, "shards": chunks // per_shard}
        shards(folder / "images", chunks, per_shard)
        os.environ |= s3.environment if s3 else {}
        output = f"s3://{s3.bucket}/out" if s3 else ""
        job = write_job(folder, f"{folder}/images", checkpoint, {"chunk_rows": 1, "gpus_per_replica": 0}, output)
        planned = subprocess.run([sys.executable, "-c", PLAN, str(job)], capture_output=True, text=True, check=True)
        _, told["plan_seconds"], told["plan_memory"], told["plan_cpu_seconds"] = map(float, planned.stdout.split())
        finish(folder, job, s3, named)
        told |= {} if named else command("listing", "plan", str(job), s3=s3)
        manifest(job)
        told |= command("first_night", "run", str(job), s3=s3)  # it reads the footers of the source
        told |= command("nothing_new", "run", str(job), s3=s3)
        shutil.copyfile(folder / "images/00000.parquet", folder / "images/new.parquet")
        told |= command("one_new_shard", "run", str(job), s3=s3)
        record = runs_of(prepared_job(job).output, 1)[0]
        return told | {"labelled": record["rows"], "labelled_at": record["seconds_to_first_chunk"]}


def command(name: str, *words: str, s3: S3Server | None = None) -> dict[str, Any]:
    """Wall and CPU seconds of a command, and the memory of its largest process; requests to `s3`."""
    came = len(s3.requests) if s3 else 0
    code = "import resource, sys; from pipelines.cli import main; main({!r}); "
    code += "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    before, began = cpu_of_children(), time.time()
    run = subprocess.run([sys.executable, "-c", code.format(list(words))], capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"{name}: {run.stdout[-1000:]}{run.stderr[-2000:]}")
    took, used = time.time() - began, cpu_of_children() - before
    told = {"seconds": took, "cpu_seconds": used, "memory": int(run.stdout.split()[-1]) * 1024}
    told |= {"requests": len(s3.requests) - came} if s3 else {}
    return {f"{name}_{what}": value for what, value in told.items()}


def cpu_of_children() -> float:
    """CPU seconds of the processes that were waited for: unlike wall time, hardly touched by what else runs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def shards(folder: Path, chunks: int, per_shard: int) -> None:
    """`chunks` rows of one tiny image, a row group each, `per_shard` a file."""
    folder.mkdir()
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 60, 20)).save(file, "JPEG")
    cell = {"bytes": file.getvalue(), "path": None}
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    table = pa.table({"image": pa.array([cell] * per_shard, kind)})
    pq.write_table(table, folder / "00000.parquet", row_group_size=1)
    for i in range(1, chunks // per_shard):
        shutil.copyfile(folder / "00000.parquet", folder / f"{i:05d}.parquet")


def finish(folder: Path, job: Path, s3: S3Server | None, named: bool) -> None:
    """An empty file for each chunk of the plan, as if the job had run: its first ones by a real run. named: these alone."""
    subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "run", str(job), "--limit", "4"], capture_output=True, check=False
    )
    if named:
        return
    if s3:
        there, prepared, store = set(s3.keys()), prepared_job(job), get_backend("s3")[DEFAULT_ACCOUNT_ID]["aws"]
        for chunk in prepared.chunks:
            key = prepared.output.chunk_place(chunk).path.removeprefix(f"{s3.bucket}/")
            if key not in there:
                store.put_object(s3.bucket, key, b"")
        return
    empty = folder / "empty"
    empty.touch()
    prepared = prepared_job(job)
    for chunk in prepared.chunks:
        place = Path(prepared.output.chunk_place(chunk).path)
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.exists():
            continue
        try:
            os.link(empty, place)
        except OSError:  # a file has at most so many names: go on with another
            empty = empty.with_name(empty.name + "_")
            empty.touch()
            os.link(empty, place)


def manifest(job: Path) -> None:
    """The manifest of all these files, as the run that wrote them would have left it."""
    prepared = prepared_job(job)
    output, chunks = prepared.output, list(prepared.chunks)
    few = read_manifest(output)
    one = few.files.slice(0, 1).to_pylist()[0] | {"errors": 0}
    columns = {name: pa.array([value], few.files.schema.field(name).type) for name, value in one.items()}
    same = pa.array([0] * len(chunks))
    columns = {name: column.take(same) for name, column in columns.items()}
    columns["path"] = pa.array([f"data/{output.chunk_name(chunk)}" for chunk in chunks])
    columns["shard"] = pa.array([chunk.shard for chunk in chunks])
    columns["first"] = columns["last"] = pa.array([chunk.first for chunk in chunks])
    columns["version"] = pa.array([chunk.version for chunk in chunks])
    files = pa.table(columns, schema=few.files.schema).sort_by("path")
    write_manifest(output, Manifest(files, few.sums | {"rows": len(chunks)}))


def prepared_job(job: Path) -> Prepared:
    return prepare_job(load_config(str(job)), False)


if __name__ == "__main__":
    main()
