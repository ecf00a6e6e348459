"""The bound: what two processes reach with our own parts in a loop written by hand, without Ray and without promises.

    python -m tests.benchmarks.bound IMAGES CHECKPOINT OUTPUT [--dtype float32] [--backend auto] [--workers 2]

Each process takes the next row group, decodes, predicts, and writes top-5 and embedding as a Parquet file. No error rows,
no resume, no records: what `levit-batch run` is measured against. Prints one JSON line for each file that is written.
"""

import argparse
import json
import multiprocessing as mp
import os
import time
from pathlib import Path
from typing import Any

from levit_batch.config import ModelConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("checkpoint")
    parser.add_argument("output", type=Path)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    model = ModelConfig(checkpoint=args.checkpoint, dtype=args.dtype, backend=args.backend)
    spawn = mp.get_context("spawn")
    tasks, done = spawn.Queue(), spawn.Queue()
    count = 0
    for file, group in row_groups(args.images):
        tasks.put((file, group))
        count += 1
    for _ in range(args.workers):
        tasks.put(None)
    workers = [spawn.Process(target=work, args=(model, args.output, tasks, done)) for _ in range(args.workers)]
    for worker in workers:
        worker.start()
    for _ in range(count):
        print(json.dumps(done.get()), flush=True)
    for worker in workers:
        worker.join()


def row_groups(images: Path) -> list[tuple[str, int]]:
    import pyarrow.parquet as pq

    files = sorted(images.glob("*.parquet"))
    return [(str(file), group) for file in files for group in range(pq.ParquetFile(file).num_row_groups)]


def work(model: ModelConfig, output: Path, tasks: Any, done: Any) -> None:
    loop = Loop(model)
    while (task := tasks.get()) is not None:
        file, group = task
        rows = loop.label(file, group, output / f"{Path(file).stem}-{group}.parquet")
        done.put({"rows": rows, "time": time.time(), "worker": os.getpid()})


class Loop:
    """One process's model and decoder."""

    def __init__(self, model: ModelConfig):
        import torch

        from levit_batch.allocator import keep_memory
        from levit_batch.backends import make_target
        from levit_batch.backends.runnable import make_runnable
        from levit_batch.checkpoint import load_checkpoint
        from levit_batch.fold import fold
        from levit_batch.preprocess import Preprocessor

        keep_memory()
        torch.set_num_threads(1)
        checkpoint = load_checkpoint(model.checkpoint)
        target = make_target(model, False, "float32" if model.dtype == "auto" else model.dtype, "auto")
        folded = fold(checkpoint.model, model.heads, checkpoint.processor)
        self.backend = make_runnable(folded, model, target).load()
        self.preprocess = Preprocessor(checkpoint.processor)

    def label(self, file: str, group: int, to: Path) -> int:
        """One row group from JPEGs to a Parquet file; returns its rows."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq
        import torch

        column = pq.ParquetFile(file).read_row_group(group, columns=["image"], use_threads=False)["image"]
        images = column.combine_chunks().field("bytes")
        embeddings, logits = [], []
        for start in range(0, len(images), 8):
            pixels, _ = self.preprocess([cell.as_buffer() for cell in images[start : start + 8]])
            embedding, scores = self.backend(pixels)
            embeddings.append(embedding)
            logits.append(scores)
        embedding = np.concatenate(embeddings).astype(np.float16)
        scores, labels = torch.from_numpy(np.concatenate(logits)).softmax(-1).topk(5)
        table = pa.table(
            {
                "top_labels": pa.FixedSizeListArray.from_arrays(labels.numpy().ravel(), 5),
                "top_scores": pa.FixedSizeListArray.from_arrays(scores.numpy().ravel(), 5),
                "embedding": pa.FixedSizeListArray.from_arrays(embedding.ravel(), embedding.shape[1]),
            }
        )
        pq.write_table(table, to, compression="zstd", use_dictionary=False)
        return len(images)


if __name__ == "__main__":
    main()
