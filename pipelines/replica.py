"""What runs in Ray's workers: read -> preprocess -> predict -> write, a chunk at a time, a record of each back.

`Replica` does all four (on a CPU). With a GPU, `DecodeTask` does the first two on CPUs and `Replica` the rest.
"""

import functools
import os
import resource
import socket
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from levit_batch.allocator import keep_memory
from levit_batch.attempts import ISOLATE_AFTER, Attempts
from levit_batch.backends.runnable import Runnable
from levit_batch.cells import cell_buffers
from levit_batch.config import JobConfig
from levit_batch.errors import LevitBatchError
from levit_batch.isolate import IsolatedPreprocessor
from levit_batch.output import Output
from levit_batch.plan import Chunk, chunks_of_table
from levit_batch.predict import Predictor
from levit_batch.preprocess import Preprocessor
from levit_batch.read_ahead import read_ahead
from levit_batch.redact import redact
from levit_batch.rows import output_table
from levit_batch.schema import IMAGE_BYTES, READ_ERROR, TARGET, RowSpec
from levit_batch.sources import Source
from levit_batch.stats import chunk_stats
from levit_batch.write import read_record, write_chunk
from pipelines.blocks import CHUNK, DECODED, pack, record_block, unpack


@dataclass(frozen=True)
class Work:
    """Everything a worker needs to know about the job. Pickles; the model's weights travel apart."""

    config: JobConfig
    source: Source
    output: Output
    spec: RowSpec
    processor: dict[str, Any]
    targets: Any
    fingerprint: str
    run: str
    redo: bool = False  # label chunks that exist, too


@dataclass
class Part:
    """One chunk under way: its rows without the images, and the pixels of its good ones."""

    chunk: Chunk
    attempt: int
    started: float
    seconds: dict[str, float] = field(default_factory=dict)
    tables: list[pa.Table] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    bytes: int = 0
    unmatched: int = 0

    def record(self, stats: dict[str, Any]) -> dict[str, Any]:
        """What the driver, the file and the run's record are told of this chunk."""
        return {
            "chunk": str(self.chunk),
            "shard": self.chunk.shard,
            "first": self.chunk.first,
            "stop": self.chunk.first + len(self.errors),
            "rows": len(self.errors),
            "errors": stats["errors"],
            "stats": stats,
            "seconds": self.seconds,
            "bytes": self.bytes,
            "unmatched": self.unmatched,
            "attempt": self.attempt,
            "started": self.started,
            "ended": time.time(),
            "node": socket.gethostname(),
            "pid": os.getpid(),
        }

    def spend(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


class Decoder:
    """The first half: rows read, images decoded and preprocessed."""

    def __init__(self, work: Work):
        self.work = work
        self.attempts = Attempts(work.output, work.run)
        source = work.config.source
        arguments = (work.processor, work.config.preprocess.mode, source.max_image_pixels, source.decode_timeout)
        self.preprocess = Preprocessor(*arguments)
        # Made when the first chunk needs it: a chunk that killed its process before.
        self.isolated = functools.cache(lambda: IsolatedPreprocessor(*arguments))

    def begin(self, chunk: Chunk) -> Part:
        return Part(chunk, self.attempts.begin(chunk), time.time())

    def batches(self, part: Part) -> Iterator[np.ndarray]:
        """uint8 [G,H,W,3] of the good images of each table read; the rest of the rows goes into `part`."""
        preprocess = self.isolated() if part.attempt > ISOLATE_AFTER else self.preprocess
        for table in read_ahead(self.work.source.read(part.chunk), functools.partial(part.spend, "read")):
            since = time.perf_counter()
            encoded = cell_buffers(table[IMAGE_BYTES])
            pixels, errors = preprocess(encoded)
            errors = [said or found for said, found in zip(table[READ_ERROR].to_pylist(), errors, strict=True)]
            part.bytes += sum(len(data) for data in encoded if data is not None)
            part.errors += errors
            part.tables.append(self._rest(table, part))
            part.spend("decode", time.perf_counter() - since)
            good = [i for i, error in enumerate(errors) if error is None]
            if good:
                yield pixels if len(good) == len(errors) else pixels[good]

    def _rest(self, table: pa.Table, part: Part) -> pa.Table:
        rest = table.drop_columns([IMAGE_BYTES, READ_ERROR])
        if self.work.targets is None:
            return rest
        target, unmatched = self.work.targets.apply(rest[TARGET].combine_chunks())
        part.unmatched += unmatched
        return rest.set_column(rest.schema.get_field_index(TARGET), TARGET, target)


class Replica:
    """The model in one actor. Takes descriptors of chunks (it decodes itself) or chunks decoded by a `DecodeTask`."""

    def __init__(self, work: Work, model: "ray.ObjectRef | Runnable"):
        keep_memory()
        self.work = work
        self.decoder = Decoder(work)
        self.model = model
        self.idle_since = time.time()

    @functools.cached_property
    def predictor(self) -> Predictor:
        """Made with the first chunk, so that what is wrong with it is reported as that chunk's failure."""
        model: Runnable = ray.get(self.model) if isinstance(self.model, ray.ObjectRef) else self.model
        heads = (model.folded.class_head, model.folded.distill_head)
        return Predictor(model.load(), self.work.config.predict, model.target.batch, heads)

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        if DECODED in block.schema.names:
            yield record_block(self.guard(lambda: self.finish_decoded(block), block[CHUNK][0].as_py()))
            return
        for chunk in chunks_of_table(block):
            yield record_block(self.guard(functools.partial(self.label, chunk), str(chunk)))

    def guard(self, work: Callable[[], dict[str, Any]], name: str) -> dict[str, Any]:
        """The record of `work`, or of its failure: one chunk that fails must not end the job."""
        waited = time.time() - self.idle_since
        try:
            record = work()
        except Exception as e:
            record = failed(name, e)
        self.idle_since = time.time()
        return record | {"waited": waited}

    def label(self, chunk: Chunk) -> dict[str, Any]:
        """One chunk from source to output file."""
        at = self.work.output.chunk_place(chunk)
        if not self.work.redo and at.exists():  # a replay of the task after a death
            return read_record(at)
        part = self.decoder.begin(chunk)
        return self.write(part, self.decoder.batches(part))

    def finish_decoded(self, block: pa.Table) -> dict[str, Any]:
        """A chunk that a `DecodeTask` decoded, from pixels to output file."""
        part, pixels = unpack(block)
        if isinstance(part, dict):
            return part
        return self.write(part, [pixels] if len(pixels) else [])

    def write(self, part: Part, pixels: Iterable[np.ndarray]) -> dict[str, Any]:
        """Predictions and rows together as the chunk's file; the record of it."""
        predicted = self.predict(part, pixels)
        since = time.perf_counter()
        chunk, work = part.chunk, self.work
        answers = None if predicted is None else self.predictor.answers(*predicted)
        rest = pa.concat_tables(part.tables) if part.tables else pa.table({})
        if chunk.rows is not None and len(part.errors) != chunk.rows:
            raise OSError(
                f"{chunk}: {len(part.errors)} rows read, {chunk.rows} planned: the shard changed meanwhile; run again"
            )
        table = output_table(chunk.shard, chunk.first, rest, part.errors, answers, work.spec)
        stats = chunk_stats(table)
        record = part.record(stats)
        size = write_chunk(work.output, chunk, table, work.fingerprint, record)
        self.decoder.attempts.end(chunk)
        record["seconds"]["write"] = time.perf_counter() - since
        return record | {"written": size, "peak_memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}

    def predict(self, part: Part, pixels: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray] | None:
        """Embeddings and logits of all images; what `pixels` itself takes (reading, decoding) is not counted here."""
        since, before = time.perf_counter(), sum(part.seconds.values())
        predicted = self.predictor(pixels)
        part.spend("predict", time.perf_counter() - since - (sum(part.seconds.values()) - before))
        return predicted


class DecodeTask:
    """Descriptors of chunks in; each chunk decoded, as one row that holds all its pixels, out."""

    def __init__(self, work: Work):
        self.decoder = Decoder(work)

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        for chunk in chunks_of_table(block):
            try:
                yield self.decode(chunk)
            except Exception as e:
                yield pack(failed(str(chunk), e), np.empty(0, np.uint8))

    def decode(self, chunk: Chunk) -> pa.Table:
        work = self.decoder.work
        at = work.output.chunk_place(chunk)
        if not work.redo and at.exists():
            return pack(read_record(at), np.empty(0, np.uint8))
        part = self.decoder.begin(chunk)
        return pack(
            part,
            np.concatenate([np.empty((0, *self.decoder.preprocess.size, 3), np.uint8), *self.decoder.batches(part)]),
        )


def failed(chunk: str, error: Exception) -> dict[str, Any]:
    """The record of a chunk that could not be labelled; what the source or the store caused may go away by itself."""
    exit_code = error.exit_code if isinstance(error, LevitBatchError) else 1
    return {"chunk": chunk, "failed": failure(error), "again": isinstance(error, OSError), "exit_code": exit_code}


def failure(error: Exception) -> str:
    """One line for what can happen to any job; the traceback for what is our bug."""
    if isinstance(error, LevitBatchError | OSError):
        return redact(f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error))
    return redact("".join(traceback.format_exception(error)))
