"""How large a default chunk's footer is, and what planning many shards costs the first night and the nights after.

    python -m tests.benchmarks.footers [--shards 100000] [--objects 500]

The shards are names of one file of 1,000 rows in ten row groups; the objects are the same on an object store on loopback, where
requests are counted.
"""

import argparse
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from levit_batch.job.config import SourceConfig
from levit_batch.levit.variants import VARIANTS
from levit_batch.levit.weights import imagenet_names
from levit_batch.sources.footers import Footers
from levit_batch.sources.source import open_source
from levit_batch.storage.place import place
from tests.support.outputs import make_output
from tests.support.s3_server import S3Server


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--objects", type=int, default=500)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, config in VARIANTS.items():
            print(json.dumps({"model": name} | size(Path(folder, name), config.hidden_sizes[-1], target=None)), flush=True)
        everything = size(Path(folder, "all"), config.hidden_sizes[-1], logits=True, per_head=True)
        print(json.dumps({"model": f"{name}, target, logits and heads"} | everything), flush=True)
        many_shards(Path(folder, "shards"), args.shards)
        many_objects(Path(folder, "shards"), args.objects)


def size(folder: Path, width: int, **options) -> dict[str, int]:
    """Bytes of a chunk of 2,048 rows over ImageNet's classes, and of its footer."""
    shape = {"shards": 1, "rows": 2048, "chunk_rows": 2048, "top_k": 5}
    made = make_output(folder, classes=tuple(imagenet_names()), width=width, **shape, **options)
    (file,) = made.path.rglob("data/*/*.parquet")
    data = file.read_bytes()
    return {"file": len(data), "footer": int.from_bytes(data[-8:-4], "little")}


def many_shards(folder: Path, count: int) -> None:
    folder.mkdir()
    image = pa.array([{"bytes": b"x", "path": "x"}] * 1000)
    one = folder.with_suffix(".parquet")
    pq.write_table(pa.table({"image": image}), one, row_group_size=100)
    os.utime(one, (1_700_000_000, 1_700_000_000))
    for i in range(count):
        try:
            os.link(one, folder / f"{i:06d}.parquet")
        except OSError:  # a file has at most so many names: go on with a copy
            one = Path(shutil.copy2(one, folder / f"{i:06d}.parquet"))
    for night in ("first", "second"):
        print(json.dumps({"night": night, "shards": count} | plan(str(folder), str(folder.parent / "kept"))), flush=True)


def many_objects(folder: Path, count: int) -> None:
    with S3Server() as s3:
        os.environ |= s3.environment
        body = next(folder.iterdir()).read_bytes()
        for i in range(count):
            s3.client.put_object(Bucket=s3.bucket, Key=f"in/{i:06d}.parquet", Body=body)
        time.sleep(61)  # what is younger is not kept
        for night in ("first", "second"):
            s3.requests.clear()
            found = plan(f"s3://{s3.bucket}/in", f"s3://{s3.bucket}/kept")
            print(json.dumps({"night": night, "objects": count, "requests": len(s3.requests)} | found), flush=True)


def plan(source: str, kept: str) -> dict[str, float]:
    """Seconds of listing the files, and then of knowing their rows and row groups."""
    opened, began = open_source(SourceConfig(path=source)), time.perf_counter()
    files, listed = opened.files, time.perf_counter()
    opened.footers = Footers(place(kept))
    assert sum(shard.rows for shard in opened.shards()) == 1000 * len(files)
    opened.footers.save(whole=True)
    return {"list_seconds": round(listed - began, 2), "footer_seconds": round(time.perf_counter() - listed, 2)}


if __name__ == "__main__":
    main()
