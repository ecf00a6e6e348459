"""What runs in a process of its own, Ray's or ours: read -> preprocess -> predict -> write, a chunk at a time, a record of each
back.

`Replica` does all four (on a CPU). With a GPU, `DecodeTask` does the first two on CPUs and `Replica` the rest.
"""

import functools
import itertools
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from levit_batch.errors import DeviceLostError, LevitBatchError, RefusedError
from levit_batch.job.chunks import Chunk, chunks_of_table
from levit_batch.job.row import output_schema
from levit_batch.storage.redact import redact
from levit_batch.table.attempts import PREDICT
from levit_batch.table.refusal import writing
from levit_batch.table.rows import output_table
from levit_batch.table.write import read_record, write_chunk
from pipelines.label.process import die, keep_memory, peak_memory, quick_imports
from pipelines.label.work import DECODED, Part, Work, as_json, pack, record_block, sent, unpack

FIRST = 8  # images that a model is tried with before its time counts

if TYPE_CHECKING:
    from levit_batch.inference.backends.choose import Runtime
    from levit_batch.inference.predict import Predictor
    from levit_batch.inference.runnable import Runnable
    from pipelines.label.decoder import Decoder
    from pipelines.label.watch import Album, Watch


def make_decoder(work: Work) -> "Decoder":
    with quick_imports():  # torch
        from pipelines.label.decoder import Decoder
    return Decoder(work)


def make_album(work: Work) -> "Album":
    from levit_batch.results.naming import Naming, file_column
    from pipelines.label.watch import Album  # torch

    return Album(Naming(work.spec.class_names, file_column(output_schema(work.spec), work.config.source.image_column)))


class Replica:
    """The model in one actor. Takes descriptors of chunks (it decodes itself) or chunks decoded by a `DecodeTask`.

    It is called from two threads: while one computes, the other waits for the disk or the store to take the chunk
    before, or to give the next one's first rows.
    """

    def __init__(self, work: Work, model: "Runnable | Callable[[], Runnable]"):
        self.work = work
        self.decoder = make_decoder(work)
        self.model = model
        self.album = make_album(work)
        self.predictor: Predictor | None = None
        self.runtime: Runtime | None = None

    def load(self, part: Part, images: np.ndarray) -> None:
        """Make the predictor, with the first images of this process, and check it with them: a stage of its own."""
        from levit_batch.inference.predict import Predictor

        since = time.perf_counter()
        model: Runnable = self.model() if callable(self.model) else self.model
        heads = (model.folded.class_head, model.folded.distill_head)
        predictor = Predictor(model.load(), self.work.config.predict, heads)
        keep_memory()  # not before: what loading leaves behind should go back
        predictor.backend(images)
        self.predictor, self.runtime = predictor, model.runtime
        part.spend("load", time.perf_counter() - since)

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        if DECODED in block.schema.names:
            part, pixels = unpack(block)
            if isinstance(part, Part):
                part = self.guard(functools.partial(self.finish_decoded, part, pixels), part.chunk)
            yield record_block(part)
            return
        for chunk in chunks_of_table(block):
            yield record_block(self.guard(functools.partial(self.label, chunk), chunk))

    def guard(self, work: Callable[[], dict[str, Any]], chunk: Chunk) -> dict[str, Any]:
        """The record of `work`, or of its failure: one chunk that fails must not end the job."""
        try:
            return work()
        except Exception as e:
            return failure_record(chunk, e)

    def label(self, chunk: Chunk) -> dict[str, Any]:
        """One chunk from source to output file."""
        at = self.work.output.chunk_place(chunk)
        if not self.work.redo and at.exists():  # a replay of the task after a death
            return sent(self.work.output, chunk, read_record(at))
        with self.decoder.begin(chunk) as (part, tables):
            with self.decoder.turn() as part.waited:
                watch = self.album.watch(part)
                predicted = self.predict(part, self.decoder.batches(part, tables), watch)
            return self.write(part, predicted, watch)

    def finish_decoded(self, part: Part, pixels: np.ndarray) -> dict[str, Any]:
        """A chunk that a `DecodeTask` decoded, from pixels to output file."""
        with self.decoder.attempt(part.chunk, PREDICT) as attempt:
            part.attempt = max(part.attempt, attempt)
            with self.decoder.turn() as part.waited:
                watch = self.album.watch(part)
                predicted = self.predict(part, [pixels] if len(pixels) else [], watch)
            return self.write(part, predicted, watch)

    def write(self, part: Part, predicted: tuple[np.ndarray, np.ndarray] | None, watch: "Watch") -> dict[str, Any]:
        """Predictions and rows together as the chunk's file; the record of it."""
        since = time.perf_counter()
        chunk, work = part.chunk, self.work
        answers = None if predicted is None else self.predictor.answers(*predicted)
        rest = pa.concat_tables(part.tables) if part.tables else pa.table({})
        if chunk.rows is not None and len(part.errors) != chunk.rows:
            raise OSError(
                f"{chunk}: {len(part.errors)} rows read, {chunk.rows} planned: the shard changed meanwhile; run again"
            )
        table = output_table(chunk.shard, chunk.first, rest, part.errors, answers, work.spec)
        record = part.record(work.run, table, work.spec.classes)
        with writing(work.output):
            size = write_chunk(work.output, chunk, table, work.fingerprint, record)
        self.decoder.attempts.end(chunk)
        record["seconds"]["write"] = time.perf_counter() - since
        record = sent(work.output, chunk, record, size) | {"looks": as_json(self.album.add(table, watch))}
        record |= {"cold": part.cold or "load" in part.seconds, "gpu": self.gpu()}
        return record | {"peak_memory": peak_memory()}

    def predict(
        self, part: Part, pixels: Iterable[np.ndarray], watch: "Watch"
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Embeddings and logits of all images; what `pixels` itself takes (reading, decoding) is not counted here."""
        since, before = time.perf_counter(), sum(part.seconds.values())
        arrays = iter(pixels)
        try:
            if (first := next(arrays, None)) is None:
                return None
            if self.predictor is None:  # not before: what is wrong with it is then reported as this chunk's failure
                self.load(part, first[:FIRST])
            predicted = self.predictor(itertools.chain([first], arrays), watch)
        except DeviceLostError as e:
            die(e)  # here, where the attempt still counts
        part.spend("predict", time.perf_counter() - since - (sum(part.seconds.values()) - before))
        return predicted

    def gpu(self) -> dict[str, Any] | None:
        """Which GPU the model runs on, and how; None on a CPU."""
        if not (self.runtime and self.runtime.gpu):
            return None
        from levit_batch.inference.backends.torch_backend import gpu_facts

        return gpu_facts() | {"dtype": self.runtime.dtype, "batch": self.predictor.backend.batch}


class DecodeTask:
    """Descriptors of chunks in; each chunk decoded, as one row that holds all its pixels, out."""

    def __init__(self, work: Work):
        self.decoder = make_decoder(work)

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        for chunk in chunks_of_table(block):
            try:
                yield self.decode(chunk)
            except Exception as e:
                yield pack(failure_record(chunk, e), np.empty(0, np.uint8))

    def decode(self, chunk: Chunk) -> pa.Table:
        work = self.decoder.work
        at = work.output.chunk_place(chunk)
        if not work.redo and at.exists():
            return pack(sent(work.output, chunk, read_record(at)), np.empty(0, np.uint8))
        none = np.empty((0, *self.decoder.preprocess.size, 3), np.uint8)
        with self.decoder.begin(chunk) as (part, tables), self.decoder.turn():
            decoded = pack(part, np.concatenate([none, *self.decoder.batches(part, tables)]))
        self.decoder.attempts.take_back(chunk)
        return decoded


def failure_record(chunk: Chunk, error: Exception) -> dict[str, Any]:
    """The record of a chunk that could not be labelled; what the source or the store caused may go away by itself."""
    refused = isinstance(error, RefusedError)
    return {
        "chunk": str(chunk),
        "failed": reason(error),
        "again": refused or isinstance(error, OSError),
        "refused": refused,
        "exit_code": error.exit_code if isinstance(error, LevitBatchError) else 1,
    }


def reason(error: Exception) -> str:
    """One line for what can happen to any job; the traceback for what is our bug."""
    if isinstance(error, LevitBatchError | OSError):
        return redact(f"{type(error).__name__}: {error}" if isinstance(error, OSError) else str(error))
    return redact("".join(traceback.format_exception(error)))
