"""transformers' image-classification pipeline, fed with the encoded images of the shards: top-5 only, it gives no embedding."""

import argparse
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import LevitForImageClassificationWithTeacher, pipeline

from tests.benchmarks.images import read_images
from tests.benchmarks.peer import arguments, picture, processor_of, tell

BATCH = 8  # its best on a CPU


class Photographs(Dataset):
    def __init__(self, data: list[bytes]):
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Image.Image:
        return picture(self.data[index])


def answers(args: argparse.Namespace) -> Iterator[list[dict]]:
    workers = args.workers or 0
    torch.set_num_threads(1 if workers else 2)
    model = LevitForImageClassificationWithTeacher.from_pretrained(args.checkpoint)
    processor = processor_of(args.checkpoint)
    run = pipeline("image-classification", model=model, image_processor=processor, device="cpu")
    images = Photographs(read_images(args.images))
    yield from run(images, batch_size=args.batch or BATCH, num_workers=workers, top_k=5)


def main() -> None:
    args = arguments("--workers", "--batch")
    found, told = [], 0
    for answer in answers(args):
        found.append(answer)
        if len(found) - told == BATCH:
            tell(BATCH)
            told = len(found)
    pq.write_table(pa.table({"top": found}), args.output / "answers.parquet")
    tell(len(found) - told)


if __name__ == "__main__":
    main()
