"""How many rows a second `search`, `review` and `select --diverse` do, in which time of the processors and how much memory.

    python -m tests.benchmarks.near [--rows 1000000] [--chunk-rows 2048] [--width 384] [--classes 1000] [--rounds 3]

The rows are made: embeddings around a centre for each class, labels drawn evenly, random hashes. Of `rescore`: rescore.py.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from levit_batch.job.chunks import Chunk
from levit_batch.table.read import read_table, require_files
from levit_batch.table.write import read_record, write_chunk
from tests.support.jobs import COMMAND
from tests.support.outputs import FINGERPRINT, make_output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"rows": 1_000_000, "chunk-rows": 2048, "width": 384, "classes": 1000, "rounds": 3}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, rows = write_table(Path(folder), args.rows, args.chunk_rows, args.width, args.classes)
        for name, words in commands(path).items():
            rounds = [measure([*COMMAND, *words]) for _ in range(args.rounds)]
            print(json.dumps(figures(name, rows, rounds)), flush=True)


def commands(path: str) -> dict[str, list[str]]:
    return {
        "search": ["search", path, "part-00.parquet:7", "--json"],
        "review": ["review", path, "--json"],
        "select": ["select", path, "--by", "margin,outlier", "--diverse", "--json"],
    }


def write_table(folder: Path, rows: int, chunk_rows: int, width: int, classes: int) -> tuple[str, int]:
    """An output of `rows` rows, of which one chunk was made by the tests' means; its path, and how many rows it has."""
    names = tuple(f"class {i}" for i in range(classes))
    shape = {"shards": 1, "rows": chunk_rows, "chunk_rows": chunk_rows, "top_k": 5, "bad": 0, "target": None}
    made, random = make_output(folder, classes=names, width=width, **shape), np.random.default_rng(0)
    centres = random.normal(size=(classes, width)).astype(np.float32)
    (file,) = require_files(made.output)
    table, record, shards = read_table(file.place), read_record(file.place), max(rows // chunk_rows, 1)
    for number in range(shards):
        chunk = Chunk(f"part-{number:02d}.parquet", "", file.written.version, 0, chunk_rows)
        made_up = with_own_values(table, chunk.shard, centres, random)
        write_chunk(made.output, chunk, made_up, FINGERPRINT, record | {"shard": chunk.shard})
    return str(made.path), shards * chunk_rows


def with_own_values(table: pa.Table, shard: str, centres: np.ndarray, random: np.random.Generator) -> pa.Table:
    """The rows of `table` under a shard's name, with labels, embeddings and hashes of their own."""
    labels = np.argsort(random.random((len(table), len(centres))), axis=1)[:, :5]
    vectors = centres[labels[:, 0]] + random.normal(0, 0.5, (len(table), centres.shape[1])).astype(np.float32)
    lists = {"top_labels": (labels, pa.int64(), 5), "embedding": (vectors.astype(np.float16), pa.float16(), vectors.shape[1])}
    columns = {
        kind: pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), value), wide)
        for kind, (values, value, wide) in lists.items()
    }
    columns |= {"shard": pa.array([shard] * len(table)), "label": pa.array(labels[:, 0])}
    for column, values in columns.items():
        table = table.set_column(table.schema.get_field_index(column), column, values)
    return table.append_column("image_phash", pa.array(random.integers(-(2**63), 2**63, len(table))))


def measure(command: list[str]) -> dict[str, float]:
    """Seconds by the clock and of the processors, and the most memory, of one command."""
    since = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return {"seconds": time.monotonic() - since, "cpu": used.ru_utime + used.ru_stime, "memory": used.ru_maxrss * 1024}


def figures(name: str, rows: int, rounds: list[dict[str, float]]) -> dict[str, float | str]:
    """Medians of the times, the most of the memory, start-up included."""
    found = {kind: round(statistics.median(one[kind] for one in rounds), 2) for kind in ("seconds", "cpu")}
    memory = round(max(one["memory"] for one in rounds) / 1e6)
    return {"command": name, "rows": rows, **found, "rows_per_cpu_second": round(rows / found["cpu"]), "memory_mb": memory}


if __name__ == "__main__":
    main()
