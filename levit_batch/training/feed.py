"""Where a training's batches come from: the images of a source, epoch by epoch, and those that it is judged by."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from levit_batch.job.chunks import Chunk
from levit_batch.pixels.fit import fit
from levit_batch.pixels.preprocessing import Preprocessing
from levit_batch.training.augment import augment
from levit_batch.training.config import FinetuneConfig, TrainSourceConfig
from levit_batch.training.data import (
    Batch,
    Loader,
    Sample,
    SampleReader,
    Split,
    open_training_source,
    shuffled,
    worker_chunks,
)
from levit_batch.training.state import State
from levit_batch.training.targets import ClassColumn
from levit_batch.training.workers import Workers


@dataclass(frozen=True)
class TrainPlan:
    """What is known before the first image is read. Pickles.

    rows: planned training rows, bad ones included; the learning rate's way from first to last step follows from it.
    """

    names: tuple[str, ...]
    chunks: tuple[Chunk, ...]
    rows: int
    validation_chunks: tuple[Chunk, ...]


class Feed(Protocol):
    """Batches for one worker. skipped, validation_skipped: rows left out by kind, since the last call of the method."""

    skipped: dict[str, int]
    validation_skipped: dict[str, int]

    def batches(self, state: State, size: int) -> Iterator[Batch]:
        """This worker's batches of the running epoch, from where it was left."""

    def validation(self, size: int) -> Iterator[Batch]:
        """This worker's part of the validation rows; the last batch may be smaller."""


class ImageFeed:
    """Images, decoded in threads; those to train on augmented, those of the validation as labelling resizes them."""

    def __init__(
        self, config: FinetuneConfig, plan: TrainPlan, workers: Workers, preprocessing: Preprocessing, threads: int
    ):
        self.config, self.plan, self.workers, self.preprocessing = config, plan, workers, preprocessing
        cache, most = config.train.cache_bytes, config.source.max_image_pixels
        self.epoch = 0
        self.read, self.read_validation = make_readers(config, plan.names, cache)
        self.loader, self.validation_loader = Loader(self._augmented, most, threads), Loader(self._fitted, most, threads)

    @property
    def skipped(self) -> dict[str, int]:
        return self.loader.skipped

    @property
    def validation_skipped(self) -> dict[str, int]:
        return self.validation_loader.skipped

    def _augmented(self, pixels: np.ndarray, sample: Sample) -> np.ndarray:
        rng = np.random.default_rng((self.config.train.seed, self.epoch, sample.key))
        return augment(pixels, self.config.augment, self.preprocessing, rng)

    def _fitted(self, pixels: np.ndarray, sample: Sample) -> np.ndarray:
        out = np.empty((*self.preprocessing.output(), 3), np.uint8)
        fit(pixels, self.preprocessing, self.config.source.max_image_pixels, out)
        return out

    def batches(self, state: State, size: int) -> Iterator[Batch]:
        workers, train = self.workers, self.config.train
        self.epoch = state.epoch
        chunks = worker_chunks(list(self.plan.chunks), train.seed, state.epoch, workers.rank, workers.count)
        order = shuffled(self.read, chunks, train.shuffle_rows, (train.seed, state.epoch, workers.rank))
        start = state.consumed[workers.rank] if state.consumed else 0
        self.loader.skipped = dict(state.skipped[workers.rank]) if state.skipped else {}
        return self.loader.batches(order, size, start)

    def validation(self, size: int) -> Iterator[Batch]:
        chunks = list(self.plan.validation_chunks)[self.workers.rank :: self.workers.count]
        samples = (sample for chunk in chunks for sample in self.read_validation(chunk))
        self.validation_loader.skipped = {}
        return self.validation_loader.batches(samples, size, drop_last=False)


def make_readers(
    config: FinetuneConfig, names: tuple[str, ...], cache_bytes: int = 0
) -> tuple[SampleReader, SampleReader]:
    """Readers of the rows to train on and of those to validate on: of a source of their own, or a part of the first's."""
    seed, own_source = config.train.seed, config.validation.source
    fraction = 0.0 if own_source else config.validation.fraction
    validation = own_source or config.source.model_copy(update={"teacher_column": None})
    return (
        _reader(config.source, names, Split(seed, fraction, 1.0), cache_bytes),
        _reader(validation, names, Split(seed) if own_source else Split(seed, 0.0, fraction), cache_bytes // 4),
    )


def _reader(config: TrainSourceConfig, names: tuple[str, ...], split: Split, cache_bytes: int) -> SampleReader:
    source = open_training_source(config)
    target = ClassColumn(source, config.target_column, "source.target_column", list(names))
    teacher = config.teacher_column and ClassColumn(source, config.teacher_column, "source.teacher_column", list(names))
    return SampleReader(source, target, teacher or None, split, cache_bytes)
