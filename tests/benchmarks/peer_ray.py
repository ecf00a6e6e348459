"""The plain Ray Data template: read_parquet, map_batches with the processor, an actor with the model, write_parquet."""

import time

import numpy as np
import pyarrow.parquet as pq
import ray
import torch
from transformers import LevitImageProcessor

from tests.benchmarks.peer import Model, arguments, picture, processor_of, tell_afterwards


def preprocess(batch: dict[str, np.ndarray], processor: LevitImageProcessor) -> dict[str, np.ndarray]:
    images = [picture(cell["bytes"]) for cell in batch["image"]]
    return {"pixels": processor(images, return_tensors="np")["pixel_values"]}


class Label(Model):
    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        scores, labels, embedding = self.top(torch.as_tensor(batch["pixels"]))
        times = np.full(len(labels), time.time())
        return {"labels": labels.numpy(), "scores": scores.numpy(), "embedding": embedding.half().numpy(), "at": times}


def main() -> None:
    args = arguments()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    data = ray.data.read_parquet(str(args.images), columns=["image"])
    # One actor of the two CPUs: with two, nothing is left for the write and the job never ends.
    strategy = ray.data.ActorPoolStrategy(size=1)
    data = data.map_batches(preprocess, fn_kwargs={"processor": processor_of(args.checkpoint)}, batch_size=32)
    data = data.map_batches(Label, fn_constructor_args=(args.checkpoint,), batch_size=32, compute=strategy)
    data.write_parquet(str(args.output / "answers"))
    ray.shutdown()
    tell_afterwards(pq.read_table(args.output / "answers", columns=["at"])["at"].to_numpy())


if __name__ == "__main__":
    main()
