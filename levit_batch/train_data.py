"""From chunks to batches for training: read, keep what fits, shuffle in a bounded buffer, decode in threads, batch.

The order of an epoch and every random crop follow from the seed, the epoch and the row, so that a resumed epoch goes
on with exactly the images that it had left.
"""

import hashlib
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from levit_batch.decode import decode
from levit_batch.errors import RowError, SourceError
from levit_batch.plan import Chunk
from levit_batch.schema import IMAGE_BYTES, READ_ERROR, TARGET
from levit_batch.sources import Source
from levit_batch.train_targets import Targets

NO_TARGET = "target: the target is null"


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


@dataclass
class SampleReader:
    """Samples of one part of a source, chunk by chunk; remembers chunks while they fit in `cache_bytes`."""

    source: Source
    targets: Targets
    split: Split
    teacher_column: str | None = None
    cache_bytes: int = 0
    _cache: dict[Chunk, list[Sample]] = field(default_factory=dict)

    def __call__(self, chunk: Chunk) -> list[Sample]:
        """The samples of `chunk` in row order. Raises SourceError when it cannot be read or a target is no class."""
        if chunk not in self._cache:
            samples = self._read(chunk)
            size = sum(len(sample.data or b"") for sample in samples)
            if size > self.cache_bytes:
                return samples
            self.cache_bytes -= size
            self._cache[chunk] = samples
        return self._cache[chunk]

    def _read(self, chunk: Chunk) -> list[Sample]:
        samples, row = [], chunk.first
        try:
            for table in self.source.read(chunk):
                keys = {i: self.split.key(chunk.shard, row + i) for i in range(len(table))}
                held = [i for i, key in keys.items() if self.split.holds(key)]
                for i, values in zip(held, table.take(held).to_pylist() if held else (), strict=True):
                    samples.append(self._sample(values, keys[i], f"{chunk.shard} row {row + i}"))
                row += len(table)
        except OSError as e:
            raise SourceError(f"source.path: {chunk.url} cannot be read: {e}") from None
        return samples

    def _sample(self, values: dict, key: int, where: str) -> Sample:
        target, teacher = self.targets.number(values[TARGET], where), -1
        error = values[READ_ERROR] or (NO_TARGET if target is None else None)
        if self.teacher_column:
            teacher = self.targets.number(values[self.teacher_column], where, self.teacher_column)
            error = error or ("target: the teacher's answer is null" if teacher is None else None)
        if error:
            return Sample(None, error, -1, -1, key)
        return Sample(bytes(values[IMAGE_BYTES]), None, target, teacher, key)


def shuffled(
    read: Callable[[Chunk], list[Sample]], chunks: list[Chunk], buffer_rows: int, seed: tuple[int, ...]
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
    """Decodes samples in threads, `ahead` samples before they are needed, and stacks good ones into batches."""

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

    def _decoded(self, samples: Iterator[Sample], ahead: int) -> Iterator[tuple[Sample, np.ndarray | str]]:
        with ThreadPoolExecutor(self.threads) as pool:
            waiting: deque = deque()
            try:
                for sample in samples:
                    waiting.append((sample, pool.submit(self._decode, sample)))
                    if len(waiting) > ahead:
                        done, future = waiting.popleft()
                        yield done, future.result()
                while waiting:
                    done, future = waiting.popleft()
                    yield done, future.result()
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

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
