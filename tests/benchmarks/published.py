"""The published figures, checked against the published weights: for a machine with internet.

    python -m tests.benchmarks.published coco
    python -m tests.benchmarks.published imagenet [--sizes 128S 256] [--data ILSVRC/imagenet-1k] [--limit 5000]

`coco` runs facebook/levit-128S on COCO image 000000039769 and compares its first three logits with the ones that
transformers' own test expects. `imagenet` labels the validation images (the dataset is gated: accept its conditions and log in)
through the path that a job takes and compares the top-1 accuracy with the published one; 50,000 images and all five
sizes take some hours on a laptop. Exits 1 when a figure is off.
"""

import argparse
import io
import sys
import urllib.request
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from PIL import Image

from levit_batch.inference.fold import fold
from levit_batch.levit.catalogue import PUBLISHED
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.levit.processor import LevitImageProcessor
from levit_batch.levit.variants import VARIANTS
from levit_batch.pixels.preprocess import Preprocessor

COCO = "http://images.cocodataset.org/val2017/000000039769.jpg"
COCO_LOGITS, COCO_TOLERANCE = (1.0448, -0.3745, -1.8317), 2e-4
ACCURACY_TOLERANCE = 0.2  # points


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("check", choices=["coco", "imagenet"])
    parser.add_argument("--sizes", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--data", default="ILSVRC/imagenet-1k", help="a dataset with `image` and `label` columns")
    parser.add_argument("--limit", type=int, help="only the first so many images (then nothing is compared)")
    args = parser.parse_args()
    if args.check == "coco":
        return coco()
    return max(imagenet(size, args.data, args.limit) for size in args.sizes)


@torch.inference_mode()
def coco() -> int:
    with urllib.request.urlopen(COCO) as answer:
        image = Image.open(io.BytesIO(answer.read()))
    processor = LevitImageProcessor.from_pretrained("facebook/levit-128S", backend="pil")
    model = load_checkpoint("facebook/levit-128S").model
    logits = model(processor(image, return_tensors="pt").pixel_values).logits[0, :3]
    error = (logits - torch.tensor(COCO_LOGITS)).abs().max().item()
    print(f"first logits {logits.tolist()}, expected {COCO_LOGITS}: largest difference {error:.1e}")
    return int(error > COCO_TOLERANCE)


def imagenet(size: str, data: str, limit: int | None) -> int:
    from datasets import Image as ImageFeature
    from datasets import load_dataset

    rows = load_dataset(data, split="validation", streaming=True).cast_column("image", ImageFeature(decode=False))
    right, seen = top1(f"facebook/levit-{size}", islice(rows, limit))
    percent = 100 * right / seen
    (published,) = (one.published_top1 for one in PUBLISHED if one.name == size)
    print(f"LeViT-{size}: top-1 {percent:.2f} % of {seen} images, published {published} %", flush=True)
    return int(limit is None and abs(percent - published) > ACCURACY_TOLERANCE)


@torch.inference_mode()
def top1(checkpoint: str, rows: Iterable[dict[str, Any]], batch: int = 64) -> tuple[int, int]:
    """(right, seen) over rows with `image` {"bytes"} and `label`; an image that cannot be decoded counts as wrong."""
    loaded = load_checkpoint(checkpoint)
    model, preprocess = fold(loaded.model, processor=loaded.processor), Preprocessor(loaded.processor)
    right = seen = 0
    for part in _batches(iter(rows), batch):
        pixels, errors = preprocess([row["image"]["bytes"] for row in part])
        labels = model(torch.tensor(pixels))[1].argmax(dim=1).tolist()
        pairs = zip(labels, part, errors, strict=True)
        right += sum(error is None and label == row["label"] for label, row, error in pairs)
        seen += len(part)
    return right, seen


def _batches(rows: Iterator[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    while part := list(islice(rows, size)):
        yield part


if __name__ == "__main__":
    sys.exit(main())
