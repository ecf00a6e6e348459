"""How many bytes of a gated dataset on a stand-in for the Hub a job reads, its page with it, against its image column.

    python -m tests.benchmarks.hub [--images 500] [--model 128S]

A second column beside the images, as large as they are, is what the job should not read.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tests.benchmarks.peers import prepare
from tests.benchmarks.scale import write_job
from tests.support.hub_server import HubServer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--model", default="128S")
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir(), "levit-batch-benchmark"))
    args = parser.parse_args()
    images, checkpoint = prepare(args.data, args.model, args.images, 5)
    with tempfile.TemporaryDirectory() as name, HubServer(Path(name, "hub")) as hub:
        folder = Path(name, "hub/datasets/org/pics/data")
        column = sum(copy(file, folder / file.name) for file in sorted(images.glob("*.parquet")))
        hub.gate("org/pics")
        hub.tokens.add("hf_x")
        os.environ |= hub.environment | {"HF_TOKEN": "hf_x", "HF_HOME": f"{name}/home"}
        job = write_job(Path(name), "org/pics", checkpoint, {"chunk_rows": 100}, kind="huggingface")
        subprocess.run([sys.executable, "-m", "pipelines.cli", "run", str(job)], check=True)
        told = {"image_column": column, "read": hub.bytes_served, "of_the_column": hub.bytes_served / column}
        pictures = Path(name, "out/report.html").read_text().count("data:image/")
        print(json.dumps({"images": args.images} | told | {"pictures_on_the_page": pictures}))


def copy(file: Path, to: Path) -> int:
    """The file with a second column of the images' size; bytes of its image column."""
    to.parent.mkdir(parents=True, exist_ok=True)
    table = pq.read_table(file)
    table = table.append_column("depth", pa.array([os.urandom(100_000)] * len(table)))
    pq.write_table(table, to, row_group_size=100, use_dictionary=False)
    footer = pq.read_metadata(to)
    groups = (footer.row_group(i) for i in range(footer.num_row_groups))
    columns = (group.column(i) for group in groups for i in range(group.num_columns))
    return sum(column.total_compressed_size for column in columns if column.path_in_schema.startswith("image"))


if __name__ == "__main__":
    main()
