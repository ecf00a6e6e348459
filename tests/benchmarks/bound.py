"""The bound: what two processes reach with our own parts in a loop written by hand, without Ray and without promises.

    python -m tests.benchmarks.bound IMAGES CHECKPOINT OUTPUT [--dtype float32] [--backend auto] [--workers 2] [--chunk-rows 100]

Each process takes the next row groups, decodes, predicts, and writes top-5 and embedding as a Parquet file. No error rows,
no resume, no records: what `levit-batch run` is measured against. Prints one JSON line for each file that is written.
"""

import argparse
import json
import multiprocessing as mp
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from levit_batch.job.config import ModelConfig

if TYPE_CHECKING:
    import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=Path)
    parser.add_argument("checkpoint")
    parser.add_argument("output", type=Path)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--chunk-rows", type=int, default=100)
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    model = ModelConfig(checkpoint=args.checkpoint, dtype=args.dtype, backend=args.backend)
    spawn = mp.get_context("spawn")
    tasks, done = spawn.Queue(), spawn.Queue()
    chunks = plan(args.images, args.chunk_rows)
    for chunk in chunks:
        tasks.put(chunk)
    for _ in range(args.workers):
        tasks.put(None)
    workers = [spawn.Process(target=work, args=(model, args.output, tasks, done)) for _ in range(args.workers)]
    for worker in workers:
        worker.start()
    for _ in chunks:
        print(json.dumps(done.get()), flush=True)
    for worker in workers:
        worker.join()


def plan(images: Path, rows: int) -> list[tuple[str, list[int]]]:
    """Files and row groups of them that hold at most `rows` rows together (one row group at the least)."""
    import pyarrow.parquet as pq

    chunks: list[tuple[str, list[int]]] = []
    for file in sorted(images.glob("*.parquet")):
        footer, held = pq.read_metadata(file), rows
        for group in range(footer.num_row_groups):
            held += footer.row_group(group).num_rows
            if held > rows:
                chunks.append((str(file), []))
                held = footer.row_group(group).num_rows
            chunks[-1][1].append(group)
    return chunks


def work(model: ModelConfig, output: Path, tasks: Any, done: Any) -> None:
    loop = Loop(model)
    while (task := tasks.get()) is not None:
        file, groups = task
        rows = loop.label(file, groups, output / f"{Path(file).stem}-{groups[0]}.parquet")
        done.put({"rows": rows, "time": time.time(), "worker": os.getpid()})


class Loop:
    """One process's model and decoder."""

    def __init__(self, model: ModelConfig):
        import torch

        from levit_batch.inference.backends.choose import make_runtime
        from levit_batch.inference.fold import fold
        from levit_batch.inference.runnable import make_runnable
        from levit_batch.levit.checkpoint import load_checkpoint
        from levit_batch.pixels.preprocess import Preprocessor
        from pipelines.label.process import keep_memory

        keep_memory()
        torch.set_num_threads(1)
        checkpoint = load_checkpoint(model.checkpoint)
        runtime = make_runtime(model, False, "float32" if model.dtype == "auto" else model.dtype, "auto")
        folded = fold(checkpoint.model, model.heads, checkpoint.processor)
        self.backend = make_runnable(folded, model, runtime).load()
        self.preprocess = Preprocessor(checkpoint.processor)

    def label(self, file: str, groups: list[int], to: Path) -> int:
        """Row groups from JPEGs to a Parquet file; returns their rows."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.parquet as pq
        import torch

        from levit_batch.inference.predict import whole_batches

        embeddings, logits = [], []
        for pixels in whole_batches(self.pixels(file, groups), self.backend.batch):
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
        return len(embedding)

    def pixels(self, file: str, groups: list[int]) -> Iterator["np.ndarray"]:
        """uint8 [B,H,W,3] of the images of some row groups, read a group at a time, in order."""
        import pyarrow.parquet as pq

        parquet = pq.ParquetFile(file)
        for group in groups:
            column = parquet.read_row_group(group, columns=["image"], use_threads=False)["image"]
            images = column.combine_chunks().field("bytes")
            batch = self.backend.batch
            for start in range(0, len(images), batch):
                yield self.preprocess([cell.as_buffer() for cell in images[start : start + batch]])[0]


if __name__ == "__main__":
    main()
