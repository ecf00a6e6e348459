"""A DataLoader with a worker process around transformers' processor, and its model: what timm's inference.py does."""

import argparse
import io
import json
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from transformers import LevitForImageClassificationWithTeacher, LevitImageProcessor

from tests.benchmarks.images import read_images

BATCH, WORKERS = 8, 1  # the model keeps the other core busy


class Photographs(Dataset):
    def __init__(self, data: list[bytes], processor: LevitImageProcessor):
        self.data, self.processor = data, processor

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = Image.open(io.BytesIO(self.data[index])).convert("RGB")
        return self.processor(image, return_tensors="pt")["pixel_values"][0]


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("checkpoint")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = LevitForImageClassificationWithTeacher.from_pretrained(args.checkpoint).eval()
    data = Photographs(read_images(args.images), LevitImageProcessor.from_pretrained(args.checkpoint))
    loader = DataLoader(data, batch_size=BATCH, num_workers=WORKERS, prefetch_factor=8)
    embeddings, tops = [], []
    for pixels in loader:
        embedding = model.levit(pixels).pooler_output
        logits = (model.classifier(embedding) + model.classifier_distill(embedding)) / 2
        tops.append(logits.softmax(-1).topk(5))
        embeddings.append(embedding.half())
        print(json.dumps({"rows": len(pixels), "time": time.time()}), flush=True)
    columns = {
        "labels": [row for top in tops for row in top.indices.tolist()],
        "scores": [row for top in tops for row in top.values.tolist()],
        "embedding": list(torch.cat(embeddings).numpy()),
    }
    pq.write_table(pa.table(columns), args.output / "answers.parquet")
    print(json.dumps({"rows": 0, "time": time.time()}), flush=True)


if __name__ == "__main__":
    main()
