"""How many rows a second `levit-batch rescore` does, in which time of the processors and how much memory.

    python -m tests.benchmarks.rescore [--rows 1000000] [--chunk-rows 2048] [--model 128S]

The rows are random embeddings of a real table's form, one chunk written under many shards' names, over ImageNet's classes.
"""

import argparse
import json
import tempfile
from pathlib import Path

from levit_batch.job.chunks import Chunk
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.levit.model import LevitForImageClassificationWithTeacher
from levit_batch.levit.variants import VARIANTS
from levit_batch.levit.weights import imagenet_names
from levit_batch.table.read import read_table, require_files
from levit_batch.table.write import read_record, write_chunk
from tests.benchmarks.peers import measure
from tests.support.jobs import COMMAND
from tests.support.outputs import FINGERPRINT, Made, make_output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--chunk-rows", type=int, default=2048)
    parser.add_argument("--model", default="128S")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        head = Path(folder, "head")
        config = VARIANTS[args.model].with_labels(imagenet_names())
        LevitForImageClassificationWithTeacher(config).save_pretrained(head)
        shape = {"shards": 1, "rows": args.chunk_rows, "chunk_rows": args.chunk_rows, "top_k": 5, "bad": 0, "target": None}
        checkpoint = load_checkpoint(str(head))
        made = make_output(Path(folder), classes=tuple(checkpoint.class_names), width=config.hidden_sizes[-1], **shape)
        rows = repeat(made, args.rows // args.chunk_rows)
        made.output.write_json("job.json", made.job | {"backbone": checkpoint.backbone, "processor": checkpoint.processor})
        command = [*COMMAND, "rescore", str(made.path), "--checkpoint", str(head), "--out", f"{folder}/new/out"]
        print(json.dumps({"rows": rows} | measure(command, rows, Path(folder, "new"))))


def repeat(made: Made, shards: int) -> int:
    """The one chunk of `made` in `shards` shards; returns the rows of all."""
    (file,) = require_files(made.output)
    table, record = read_table(file.place), read_record(file.place)
    for i in range(1, shards):
        name = f"part-{i:05d}.parquet"
        chunk = Chunk(name, "", file.written.version, 0, table.num_rows)
        rows = table.set_column(0, "shard", [[name] * len(table)])
        write_chunk(made.output, chunk, rows, FINGERPRINT, record | {"shard": name})
    return shards * table.num_rows


if __name__ == "__main__":
    main()
