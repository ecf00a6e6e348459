"""The first half of a chunk's way: rows read, images decoded and preprocessed."""

import contextlib
import functools
import threading
import time
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from levit_batch.job.chunks import Chunk
from levit_batch.job.row import IMAGE_BYTES, IMAGE_HASH, IMAGE_PHASH, READ_ERROR, TARGET
from levit_batch.pixels.decode import Encoded
from levit_batch.pixels.hashes import content_hash, perceptual_hash
from levit_batch.pixels.isolate import IsolatedPreprocessor
from levit_batch.pixels.preprocess import Preprocessor, as_buffer
from levit_batch.sources.columns.cells import cell_buffers
from levit_batch.table.attempts import DECODE, ISOLATE_AFTER, Attempt, Attempts
from pipelines.label.read_ahead import read_ahead
from pipelines.label.work import Part, Work


class Decoder:
    """The first half: rows read, images decoded and preprocessed. For several threads, of which one computes at a time."""

    def __init__(self, work: Work):
        self.work = work
        self.attempts = Attempts(work.output, work.run)
        source, self.hashes = work.config.source, work.config.predict.hash
        arguments = (work.processor, work.config.preprocess.mode, source.max_image_pixels, source.decode_timeout)
        self.preprocess = Preprocessor(*arguments)
        # Made when the first chunk needs it: a chunk that killed its process before.
        self.isolated = functools.cache(lambda: IsolatedPreprocessor(*arguments))
        self.reading, self.computing = threading.Lock(), threading.RLock()  # always taken in this order
        self.idle_since, self.begun = time.time(), False

    @contextlib.contextmanager
    def begin(self, chunk: Chunk) -> Iterator[tuple[Part, Iterator[pa.Table]]]:
        """`chunk` begun, and its rows, read from now on: the first ones while another chunk still computes."""
        with contextlib.ExitStack() as stack:
            self.reading.acquire()  # until its last row is read: who reads first computes first
            try:
                part = Part(chunk, time.time(), stack.enter_context(self.attempt(chunk)), not self.begun)
                self.begun = True
                rows, waited = self.work.source.read(chunk), functools.partial(part.spend, "read")
                tables = stack.enter_context(read_ahead(rows, waited, ended=self.reading.release))
            except BaseException:
                self.reading.release()
                raise
            yield part, tables

    @contextlib.contextmanager
    def attempt(self, chunk: Chunk, stage: str = DECODE) -> Iterator[Attempt]:
        """A stage of `chunk` under way: gives which attempt it is, which does not count when it fails: only deaths do.

        A chunk that a process has died with before keeps the `turn` to its end, so that the next death is blamed on it alone.
        """
        with self.computing if self.attempts.died_with(chunk) else contextlib.nullcontext():
            attempt = self.attempts.begin(chunk, stage)
            try:
                yield attempt
            except Exception:
                self.attempts.take_back(chunk, stage)
                raise

    @contextlib.contextmanager
    def turn(self) -> Iterator[float]:
        """Computing: one chunk at a time; gives the seconds that nothing did before."""
        with self.computing:
            try:
                yield time.time() - self.idle_since
            finally:
                self.idle_since = time.time()

    def batches(self, part: Part, tables: Iterable[pa.Table]) -> Iterator[np.ndarray]:
        """uint8 [G,H,W,3] of the good images of each table; the rest of the rows goes into `part`."""
        preprocess = self.isolated() if part.attempt.number > ISOLATE_AFTER else self.preprocess
        for table in tables:
            since = time.perf_counter()
            encoded = cell_buffers(table[IMAGE_BYTES])
            looks: dict[int, int] = {}
            seen = (lambda i, decoded, looks=looks: looks.update({i: perceptual_hash(decoded)})) if self.hashes else None
            pixels, errors = preprocess(encoded, seen)
            errors = [unread or bad for unread, bad in zip(table[READ_ERROR].to_pylist(), errors, strict=True)]
            part.bytes += sum(len(data) for data in encoded if data is not None)
            part.errors += errors
            rest = self._rest(table, part)
            part.tables.append(with_hashes(rest, encoded, looks) if self.hashes else rest)
            part.spend("decode", time.perf_counter() - since)
            good = [i for i, error in enumerate(errors) if error is None]
            if good:
                yield pixels if len(good) == len(errors) else pixels[good]

    def _rest(self, table: pa.Table, part: Part) -> pa.Table:
        rest = table.drop_columns([IMAGE_BYTES, READ_ERROR])
        if self.work.targets is None:
            return rest
        target, missed = self.work.targets.apply(rest[TARGET].combine_chunks())
        part.missed.append(missed)
        return rest.set_column(rest.schema.get_field_index(TARGET), TARGET, target)


def with_hashes(rest: pa.Table, encoded: list[Encoded | None], looks: dict[int, int]) -> pa.Table:
    """`rest` with the hashes of its N rows: of the bytes where there are any, of what was decoded where something was."""
    contents = [None if data is None else content_hash(as_buffer(data)) for data in encoded]
    rest = rest.append_column(IMAGE_HASH, pa.array(contents, pa.string()))
    return rest.append_column(IMAGE_PHASH, pa.array([looks.get(i) for i in range(len(encoded))], pa.int64()))
