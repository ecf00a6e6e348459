"""Many small images through three local nodes, of which one is lost and another joins; throughput, and what the driver takes.

python -m tests.benchmarks.load --images 500000 --replicas 1 2 4

Images of 64 x 64, a thousand to a shard, repeated under other names; a tiny model: what is measured is what lies around it.
For each number of replicas: images a second in all, and the driver's memory at its highest and its share of one core.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

PER_SHARD = 1000
EVERY = 0.5  # seconds between two looks


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--replicas", type=int, nargs="*", default=[2])
    parser.add_argument("--chunk-rows", type=int, default=500)
    parser.add_argument("--calm", action="store_true", help="no node is lost, none joins")
    arguments = parser.parse_args()
    from tests.support.clusters import STORE, running

    with tempfile.TemporaryDirectory() as name, running(num_cpus=2) as cluster:
        for _ in range(2):
            cluster.add_node(num_cpus=2, object_store_memory=STORE)
        make(Path(name), arguments.images)
        for replicas in arguments.replicas:
            print(json.dumps(run(Path(name), cluster, arguments, replicas)), flush=True)
    return 0


def make(folder: Path, images: int) -> None:
    from PIL import Image

    from tests.support.images import encode
    from tests.support.models import TINY, photographs, signal_model

    signal_model(TINY.with_labels([f"LABEL_{i}" for i in range(10)])).save_pretrained(folder / "checkpoint")
    encoded = [encode(Image.fromarray(one), quality=85) for one in photographs(100, 64)]
    cells = [{"bytes": encoded[i % 100], "path": f"{i}.jpg"} for i in range(PER_SHARD)]
    (folder / "images").mkdir()
    pq.write_table(pa.table({"image": pa.array(cells)}), folder / "first.parquet")
    for i in range(images // PER_SHARD):
        os.link(folder / "first.parquet", folder / f"images/{i:06d}.parquet")


def run(folder: Path, cluster: Any, arguments: argparse.Namespace, replicas: int) -> dict[str, Any]:
    """One job, from its start to the end of its command."""
    from tests.support.clusters import STORE
    from tests.support.jobs import COMMAND, chunk_files, output_rows

    out, images = folder / f"out-{replicas}", arguments.images // PER_SHARD * PER_SHARD
    values = {
        "source": {"path": str(folder / "images/*.parquet")}, "model": {"checkpoint": str(folder / "checkpoint")},
        "predict": {"top_k": 2}, "output": {"path": str(out), "shared": True},
        "compute": {"address": cluster.address, "chunk_rows": arguments.chunk_rows, "replicas": replicas},
    }  # fmt: skip
    (folder / "job.yaml").write_text(json.dumps(values))
    since, chunks, log = time.monotonic(), -(-images // arguments.chunk_rows), folder / "said.txt"
    with log.open("w") as said:
        process = subprocess.Popen([*COMMAND, "run", str(folder / "job.yaml")], stdout=said, stderr=said)
    driver, most, used, lost, joined = psutil.Process(process.pid), 0, 0.0, arguments.calm, arguments.calm
    while process.poll() is None:
        time.sleep(EVERY)
        try:
            most, used = max(most, driver.memory_info().rss), sum(driver.cpu_times()[:2])
        except psutil.NoSuchProcess:
            break
        done = len(chunk_files(out))
        if not lost and done > chunks / 3:
            cluster.remove_node(sorted(cluster.worker_nodes, key=lambda node: node.node_id)[0], allow_graceful=False)
            lost = True
        elif lost and not joined and done > chunks * 2 / 3:
            cluster.add_node(num_cpus=2, object_store_memory=STORE)
            joined = True
    code, seconds = process.wait(), time.monotonic() - since
    if code:
        raise SystemExit(log.read_text()[-2000:])
    if not joined:
        cluster.add_node(num_cpus=2, object_store_memory=STORE)
    rows = output_rows(out, ["shard", "row", "error"])
    keys = len({*zip(rows["shard"].to_pylist(), rows["row"].to_pylist(), strict=True)})
    assert rows.num_rows == keys == images and rows["error"].null_count == images, "rows are lost, doubled or in error"
    return {
        "images": images, "replicas": replicas, "a node lost and one added": joined and not arguments.calm,
        "seconds": round(seconds, 1), "images_per_second": round(images / seconds), "driver_memory": most,
        "driver_share_of_a_core": round(used / seconds, 2),
    }  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
