"""transformers' image-classification pipeline, fed with the encoded images of the shards: top-5 only, it gives no embedding."""

import argparse
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import LevitForImageClassificationWithTeacher, LevitImageProcessor, pipeline

from tests.benchmarks.images import read_images

BATCH = 8  # its best on a CPU


class Photographs(Dataset):
    def __init__(self, data: list[bytes]):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self.data[index])).convert("RGB")


def answers(args: argparse.Namespace) -> Iterator[list[dict]]:
    torch.set_num_threads(2 if args.workers == 0 else 1)
    model = LevitForImageClassificationWithTeacher.from_pretrained(args.checkpoint)
    processor = LevitImageProcessor.from_pretrained(args.checkpoint)
    run = pipeline("image-classification", model=model, image_processor=processor, device="cpu")
    yield from run(Photographs(read_images(args.images)), batch_size=args.batch, num_workers=args.workers, top_k=5)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("checkpoint")
    parser.add_argument("output", type=Path)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--batch", type=int, default=BATCH)
    args = parser.parse_args()
    found, told = [], 0
    for answer in answers(args):
        found.append(answer)
        if len(found) - told == BATCH:
            print(json.dumps({"rows": len(found) - told, "time": time.time()}), flush=True)
            told = len(found)
    pq.write_table(pa.table({"top": found}), args.output / "answers.parquet")
    print(json.dumps({"rows": len(found) - told, "time": time.time()}), flush=True)


if __name__ == "__main__":
    main()
