"""From chunks to batches for training: read, keep what fits, shuffle in a bounded buffer, decode in threads, batch.

The order of an epoch and every random crop follow from the seed, the epoch and the row, so that a resumed epoch goes
on with exactly the images that it had left.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from levit_batch.errors import RowError, SourceError
from levit_batch.job.chunks import Chunk
from levit_batch.job.row import IMAGE_BYTES, KEPT, READ_ERROR, TARGET
from levit_batch.pixels.decode import decode
from levit_batch.sources.source import Source, open_source
from levit_batch.storage.ahead import ahead
from levit_batch.training.config import TrainSourceConfig
from levit_batch.training.stored import StoredEmbeddings
from levit_batch.training.targets import ClassColumn

NO_TARGET = "target: the target, or the teacher's answer, is null"


class Sample(NamedTuple):
    """One row before decoding. `error` is "kind: message" where it cannot be used."""

    data: bytes | None
    error: str | None
    target: int
    teacher: int  # -1: no teacher column
    key: int  # of its place (shard and row) and the seed: 64 bits, the same in every run


class Batch(NamedTuple):
    pixels: Tensor  # uint8 [B, H, W, 3]
    targets: Tensor  # int64 [B]
    teachers: Tensor  # int64 [B], -1 without a teacher column
    consumed: int  # how many samples of the stream are used up, bad ones included


@dataclass(frozen=True)
class Split:
    """Which rows belong to a part: those whose key, as a fraction, lies in [low, high)."""

    seed: int
    low: float = 0.0
    high: float = 1.0

    def key(self, shard: str, row: int) -> int:
        text = f"{self.seed}:{shard}:{row}".encode()
        return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")

    def holds(self, key: int) -> bool:
        return self.low <= key / 2**64 < self.high


def open_training_source(config: TrainSourceConfig) -> Source:
    """The source, which reads the teacher's column beside the image and the target, and no other."""
    columns = [config.teacher_column] if config.teacher_column else []
    config = config.model_copy(update={"keep_columns": columns})
    return StoredEmbeddings(config) if config.type == "output" else open_source(config)


@dataclass
class SampleReader:
    """Samples of one part of a source, chunk by chunk; remembers chunks while they fit in `cache_bytes`."""

    source: Source
    target: ClassColumn
    teacher: ClassColumn | None
    split: Split
    cache_bytes: int = 0
    _cache: dict[Chunk, list[Sample]] = field(default_factory=dict)

    def __call__(self, chunk: Chunk) -> Iterator[Sample]:
        """The samples of `chunk` in row order. Raises SourceError when it cannot be read or an answer is no class."""
        if chunk in self._cache:
            yield from self._cache[chunk]
            return
        kept: list[Sample] | None = []
        left = self.cache_bytes
        for sample in self._read(chunk):
            left -= len(sample.data or b"")
            kept = kept if left >= 0 else None
            if kept is not None:
                kept.append(sample)
            yield sample
        if kept is not None:
            self._cache[chunk], self.cache_bytes = kept, left

    def _read(self, chunk: Chunk) -> Iterator[Sample]:
        row = chunk.first
        try:
            for table in self.source.read(chunk):
                keys = [self.split.key(chunk.shard, row + i) for i in range(len(table))]
                held = [i for i, key in enumerate(keys) if self.split.holds(key)]
                part = table.take(pa.array(held, pa.int64()))
                yield from self._samples(part, [keys[i] for i in held], f"{chunk.shard} from row {row}")
                row += len(table)
        except OSError as e:
            raise SourceError(f"source.path: {chunk.url} cannot be read: {e}") from None

    def _samples(self, table: pa.Table, keys: list[int], where: str) -> Iterator[Sample]:
        targets = self.target(table[TARGET], where)
        teachers = self.teacher(table[KEPT.format(0)], where) if self.teacher else [-1] * len(table)
        images, errors = table[IMAGE_BYTES], table[READ_ERROR].to_pylist()
        for i, key in enumerate(keys):
            error = errors[i] or (NO_TARGET if targets[i] is None or teachers[i] is None else None)
            if error:
                yield Sample(None, error, -1, -1, key)
            else:
                yield Sample(images[i].as_py(), None, targets[i], teachers[i], key)


def shuffled(
    read: Callable[[Chunk], Iterable[Sample]], chunks: list[Chunk], buffer_rows: int, seed: tuple[int, ...]
) -> Iterator[Sample]:
    """Every sample of `chunks` once, in an order drawn from `seed`.

    Each sample that comes in takes the place of one drawn from the buffer; the buffer holds encoded images.
    """
    rng = np.random.default_rng(seed)
    buffer: list[Sample] = []
    for chunk in chunks:
        for sample in read(chunk):
            if len(buffer) < buffer_rows:
                buffer.append(sample)
                continue
            drawn = int(rng.integers(len(buffer)))
            buffer[drawn], sample = sample, buffer[drawn]
            yield sample
    for drawn in rng.permutation(len(buffer)):
        yield buffer[drawn]


def worker_chunks(chunks: list[Chunk], seed: int, epoch: int, rank: int, count: int) -> list[Chunk]:
    """The chunks that worker `rank` of `count` trains on in this epoch; all workers' together are all chunks."""
    order = np.random.default_rng((seed, epoch)).permutation(len(chunks))
    return [chunks[i] for i in order[rank::count]]


Transform = Callable[[np.ndarray, Sample], np.ndarray]


@dataclass
class Loader:
    """Decodes samples in threads, some samples before they are needed, and stacks good ones into batches."""

    transform: Transform  # decoded uint8 [H, W, 3] and its sample -> uint8 [h, w, 3]
    max_pixels: int
    threads: int
    skipped: dict[str, int] = field(default_factory=dict)  # bad rows by kind since it was last cleared

    def batches(self, samples: Iterable[Sample], size: int, start: int = 0, drop_last: bool = True) -> Iterator[Batch]:
        """Batches of `size` good samples, from sample number `start` of the stream on."""
        samples = itertools.islice(samples, start, None)
        good: list[tuple[Sample, np.ndarray]] = []
        consumed = start
        for consumed, (sample, pixels) in enumerate(self._decoded(samples, 2 * size), start + 1):  # noqa: B007
            if isinstance(pixels, str):
                kind = pixels.split(":", 1)[0]
                self.skipped[kind] = self.skipped.get(kind, 0) + 1
                continue
            good.append((sample, pixels))
            if len(good) == size:
                yield _stack(good, consumed)
                good = []
        if good and not drop_last:
            yield _stack(good, consumed)

    def _decoded(self, samples: Iterator[Sample], most: int) -> Iterator[tuple[Sample, np.ndarray | str]]:
        # One torch thread in each: the number is a thread's own, and the resize would start more than there are cores.
        with ThreadPoolExecutor(self.threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield from ahead(pool, self._decode, samples, most)

    def _decode(self, sample: Sample) -> np.ndarray | str:
        if sample.error:
            return sample.error
        try:
            return self.transform(decode(sample.data, max_pixels=self.max_pixels), sample)
        except RowError as error:
            return str(error)


def _stack(good: list[tuple[Sample, np.ndarray]], consumed: int) -> Batch:
    pixels = torch.from_numpy(np.stack([pixels for _, pixels in good]))
    targets = torch.tensor([sample.target for sample, _ in good])
    return Batch(pixels, targets, torch.tensor([sample.teacher for sample, _ in good]), consumed)
