"""Daft: read_parquet, a class UDF with transformers' processor and model in two processes of one thread, write_parquet."""

import argparse
import io
import json
import time
from pathlib import Path

import daft
import numpy as np
import pyarrow.parquet as pq
import torch
from daft import DataType, Series, col
from PIL import Image
from transformers import LevitForImageClassificationWithTeacher, LevitImageProcessor

ANSWER = DataType.struct(
    {
        "labels": DataType.list(DataType.int64()),
        "scores": DataType.list(DataType.float32()),
        "embedding": DataType.list(DataType.float32()),
        "at": DataType.float64(),
    }
)


@daft.udf(return_dtype=ANSWER, batch_size=8, concurrency=2, use_process=True)
class Label:
    def __init__(self, checkpoint: str):
        torch.set_num_threads(1)
        self.processor = LevitImageProcessor.from_pretrained(checkpoint)
        self.model = LevitForImageClassificationWithTeacher.from_pretrained(checkpoint).eval()

    @torch.inference_mode()
    def __call__(self, cells: Series) -> list[dict]:
        images = [Image.open(io.BytesIO(data)).convert("RGB") for data in cells.to_pylist()]
        embedding = self.model.levit(self.processor(images, return_tensors="pt")["pixel_values"]).pooler_output
        logits = (self.model.classifier(embedding) + self.model.classifier_distill(embedding)) / 2
        scores, labels = logits.softmax(-1).topk(5)
        now = time.time()
        parts = zip(labels.tolist(), scores.tolist(), embedding.tolist(), strict=True)
        return [{"labels": label, "scores": score, "embedding": row, "at": now} for label, score, row in parts]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("checkpoint")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    daft.set_runner_native()
    label = Label.with_init_args(args.checkpoint)
    data = daft.read_parquet(f"{args.images}/*.parquet").select(label(col("image")["bytes"]).alias("answer"))
    data.write_parquet(str(args.output / "answers"))
    answers = pq.read_table(args.output / "answers")["answer"].combine_chunks()
    times, rows = np.unique(answers.field("at").to_numpy(), return_counts=True)
    for at, count in zip(times, rows, strict=True):
        print(json.dumps({"rows": int(count), "time": float(at)}), flush=True)
    print(json.dumps({"rows": 0, "time": time.time()}), flush=True)


if __name__ == "__main__":
    main()
