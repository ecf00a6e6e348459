"""How many MB a second `levit-batch compact` merges, and copies into few files, in how much memory; beside a plain copy.

    python -m tests.benchmarks.compact [--shards 2] [--chunks 150] [--chunk-rows 2048] [--model 128S] [--format parquet]

The rows are random embeddings of a real table's form, over ImageNet's classes.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

from levit_batch.job.chunks import Chunk
from levit_batch.levit.variants import VARIANTS
from levit_batch.levit.weights import imagenet_names
from levit_batch.table.output import ENDINGS
from levit_batch.table.read import read_table, require_files
from levit_batch.table.write import read_record, write_chunk
from tests.benchmarks.scale import command
from tests.support.outputs import FINGERPRINT, Made, make_output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--chunks", type=int, default=150, help="of a shard")
    parser.add_argument("--chunk-rows", type=int, default=2048)
    parser.add_argument("--model", default="128S")
    parser.add_argument("--format", choices=ENDINGS, default="parquet")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shape = {"shards": 1, "rows": args.chunk_rows, "chunk_rows": args.chunk_rows, "top_k": 5, "bad": 0, "target": None}
        width = VARIANTS[args.model].hidden_sizes[-1]
        made = make_output(Path(folder), classes=tuple(imagenet_names()), width=width, format=args.format, **shape)
        repeat(made, args.shards, args.chunks)
        size = sum(file.stat().st_size for file in made.path.joinpath("data").rglob("*" + made.output.ending)) / 1e6
        told = {"MB": size, "copy_seconds": copied(made.path / "data", Path(folder, "copy"))}
        told |= command("to", "compact", str(made.path), "--to", str(Path(folder, "few")))
        told |= command("compact", "compact", str(made.path))
        told |= command("to_again", "compact", str(made.path), "--to", str(Path(folder, "few from merged")))
        timed = ("copy", "compact", "compact_cpu", "to", "to_cpu", "to_again")
        rates = {f"{what}_MB_per_second": size / told[f"{what}_seconds"] for what in timed}
        print(json.dumps(told | rates | {"files": len(require_files(made.output))}))


def repeat(made: Made, shards: int, chunks: int) -> None:
    """The one chunk of `made` as `chunks` neighbours in each of `shards` shards."""
    (file,) = require_files(made.output)
    table, record, rows = read_table(file.place), read_record(file.place), file.written.stop
    for shard in (f"part-{i:05d}.parquet" for i in range(shards)):
        for first in range(0, chunks * rows, rows):
            part = table.set_column(0, "shard", [[shard] * rows]).set_column(1, "row", [np.arange(first, first + rows)])
            facts = {"shard": shard, "first": first, "stop": first + rows}
            chunk = Chunk(shard, "", file.written.version, first, first + rows)
            write_chunk(made.output, chunk, part, FINGERPRINT, record | facts)
    shutil.rmtree(made.folder(record["shard"]))


def copied(source: Path, to: Path) -> float:
    """Seconds that a copy of the files takes, until it is on the disk."""
    began = time.time()
    shutil.copytree(source, to)
    os.sync()
    took = time.time() - began
    shutil.rmtree(to)
    return took


if __name__ == "__main__":
    main()
