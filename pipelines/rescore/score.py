"""A chunk at a time in each of a few threads: embeddings read, scored, written beside the columns that stay."""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from levit_batch.job.answers import Answers
from levit_batch.job.chunks import Chunk
from levit_batch.job.row import IMAGE_HASH, IMAGE_PHASH, KEPT, TARGET, kept_name
from levit_batch.storage.ahead import ahead
from levit_batch.table.refusal import writing
from levit_batch.table.rows import list_matrix, output_table
from levit_batch.table.write import write_chunk
from pipelines.label.work import Part, sent
from pipelines.rescore.prepare import Rescoring


def scored(task: Rescoring, chunks: list[Chunk], run: str) -> Iterator[dict[str, Any]]:
    """The record of each of `chunks` when its file is written, in order. Raises OutputError for what cannot be read."""
    maker = Maker(task, run)
    threads = len(os.sched_getaffinity(0))
    # One torch thread in each: the number is a thread's own.
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for _, record in ahead(pool, maker, chunks, 2 * threads):
            yield record


class Maker:
    """Makes the file of a chunk; shared by all threads."""

    def __init__(self, task: Rescoring, run: str):
        self.task, self.run, self.fingerprint = task, run, task.job.fingerprint
        self.scorer, self.pieces, self.spec, self.targets = task.scorer, task.pieces, task.spec, task.targets

    def __call__(self, chunk: Chunk) -> dict[str, Any]:
        part, since = Part(chunk, time.time()), time.perf_counter()
        stored = self.pieces.read(chunk)
        part.bytes, part.errors = stored.nbytes, stored["error"].to_pylist()
        part.spend("read", -since + (since := time.perf_counter()))
        answers = self.answers(stored)
        part.spend("predict", -since + (since := time.perf_counter()))
        table = output_table(chunk.shard, chunk.first, self.rest(stored, part), part.errors, answers, self.spec)
        record = part.record(self.run, table, self.spec.classes)
        with writing(self.task.output):
            size = write_chunk(self.task.output, chunk, table, self.fingerprint, record)
        record["seconds"]["write"] = time.perf_counter() - since
        return sent(self.task.output, chunk, record, size)

    def answers(self, stored: pa.Table) -> Answers | None:
        """What the heads say of the rows without an error; None where each has one."""
        good = stored.select(["embedding", "error"])
        if good["error"].null_count < len(good):
            good = good.filter(pc.is_null(good["error"]))
        return self.scorer(list_matrix(good["embedding"])) if len(good) else None

    def rest(self, stored: pa.Table, part: Part) -> pa.Table:
        """The columns that stay, as `output_table` takes them from a source; targets in the checkpoint's classes."""
        columns = {KEPT.format(i): stored[kept_name(name)] for i, name in enumerate(self.spec.kept.names)}
        if self.spec.hash:
            columns |= {IMAGE_HASH: stored["image_hash"], IMAGE_PHASH: stored["image_phash"]}
        if self.targets:
            columns[TARGET], part.unmatched = stored["target"], self.pieces.unmatched(part.chunk)
            if self.task.new_classes:
                columns[TARGET], missed = self.targets.apply(stored["target"])
                part.missed.append(missed)
        return pa.table(columns)
