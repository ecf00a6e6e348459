"""The plain Ray Data template: read_parquet, map_batches with the processor, an actor with the model, write_parquet."""

import argparse
import io
import json
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import ray
import torch
from PIL import Image
from transformers import LevitForImageClassificationWithTeacher, LevitImageProcessor


def preprocess(batch: dict[str, np.ndarray], processor: LevitImageProcessor) -> dict[str, np.ndarray]:
    images = [Image.open(io.BytesIO(cell["bytes"])).convert("RGB") for cell in batch["image"]]
    return {"pixels": processor(images, return_tensors="np")["pixel_values"]}


class Model:
    def __init__(self, checkpoint: str):
        self.model = LevitForImageClassificationWithTeacher.from_pretrained(checkpoint).eval()

    @torch.inference_mode()
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        embedding = self.model.levit(torch.as_tensor(batch["pixels"])).pooler_output
        logits = (self.model.classifier(embedding) + self.model.classifier_distill(embedding)) / 2
        scores, labels = logits.softmax(-1).topk(5)
        times = np.full(len(labels), time.time())
        return {"labels": labels.numpy(), "scores": scores.numpy(), "embedding": embedding.half().numpy(), "at": times}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("images", type=Path)
    parser.add_argument("checkpoint")
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    data = ray.data.read_parquet(str(args.images), columns=["image"])
    # One actor of the two CPUs: with two, nothing is left for the write and the job never ends.
    strategy = ray.data.ActorPoolStrategy(size=1)
    processor = LevitImageProcessor.from_pretrained(args.checkpoint)
    data = data.map_batches(preprocess, fn_kwargs={"processor": processor}, batch_size=32)
    data = data.map_batches(Model, fn_constructor_args=(args.checkpoint,), batch_size=32, compute=strategy)
    data.write_parquet(str(args.output / "answers"))
    ray.shutdown()
    times, rows = np.unique(pq.read_table(args.output / "answers", columns=["at"])["at"].to_numpy(), return_counts=True)
    for at, count in zip(times, rows, strict=True):
        print(json.dumps({"rows": int(count), "time": float(at)}), flush=True)
    print(json.dumps({"rows": 0, "time": time.time()}), flush=True)


if __name__ == "__main__":
    main()
