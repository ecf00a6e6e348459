"""Heads trained on stored embeddings: the loop of any training, without images, augmentation and backbone."""

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from levit_batch.job.chunks import Chunk
from levit_batch.job.row import IMAGE_BYTES, KEPT, READ_ERROR, TARGET
from levit_batch.levit.outputs import BackboneOutput
from levit_batch.table.rows import list_matrix
from levit_batch.training.config import FinetuneConfig
from levit_batch.training.data import NO_TARGET, Batch, SampleReader
from levit_batch.training.feed import TrainPlan, make_readers
from levit_batch.training.state import State
from levit_batch.training.student import Student
from levit_batch.training.trainer import Trainer

VALIDATION_ROWS = 4096  # of one batch


@dataclass
class Rows:
    """The usable rows of a part of a table, in memory. skipped: the others, by kind."""

    embeddings: Tensor  # [N, D], as stored
    targets: Tensor  # int64 [N]
    teachers: Tensor  # int64 [N], -1 without a teacher column
    skipped: dict[str, int]

    def batch(self, rows: Tensor, consumed: int) -> Batch:
        return Batch(self.embeddings[rows], self.targets[rows], self.teachers[rows], consumed)


class Stored(nn.Module):
    """In the place of the backbone: what it is given is the embedding [B, D] already."""

    def forward(self, embedding: Tensor, *asked: object, **also: object) -> BackboneOutput:
        return BackboneOutput(None, embedding, None)


class ProbeTrainer(Trainer):
    """Trains the heads of the student on a table's embeddings, all of them in memory: 0.8 GB a million of 384 in float16."""

    def _make_feed(self, threads: int) -> "StoredFeed":
        self.normalise, self.learner = Tensor.float, heads_of(self.student)
        return StoredFeed(self.config, self.plan)


class StoredFeed:
    """A table's rows, in memory."""

    def __init__(self, config: FinetuneConfig, plan: TrainPlan):
        read, read_validation = make_readers(config, plan.names)
        self.train = config.train
        self.rows, self.validation_rows = load(read, plan.chunks), load(read_validation, plan.validation_chunks)
        self.skipped, self.validation_skipped = self.rows.skipped, self.validation_rows.skipped

    def batches(self, state: State, size: int) -> Iterator[Batch]:
        rng, rows = np.random.default_rng((self.train.seed, state.epoch)), len(self.rows.targets)
        balanced = self.train.class_weights == "balanced" and rows
        order = torch.from_numpy(rng.choice(rows, rows, p=even(self.rows.targets)) if balanced else rng.permutation(rows))
        start = state.consumed[0] if state.consumed else 0
        for first in range(start, len(order) - size + 1, size):
            yield self.rows.batch(order[first : first + size], first + size)

    def validation(self, size: int) -> Iterator[Batch]:
        for rows in torch.arange(len(self.validation_rows.targets)).split(VALIDATION_ROWS):
            yield self.validation_rows.batch(rows, 0)


def even(targets: Tensor) -> np.ndarray:
    """How likely each of the rows [N] is drawn, so that all classes that occur are drawn alike."""
    shares = 1 / np.bincount(targets)[targets]
    return shares / shares.sum()


def heads_of(student: Student) -> Student:
    """The student with its own heads, for embeddings in place of pixels."""
    learner = copy.copy(student)
    learner._modules = {**student._modules, "levit": Stored()}
    return learner


def load(read: SampleReader, chunks: tuple[Chunk, ...]) -> Rows:
    """The rows of `chunks` that the reader's split holds. Raises SourceError for an answer that is no class."""
    parts, skipped = [], Counter()
    for chunk in chunks:
        for table in read.source.read(chunk):
            held = [i for i in range(len(table)) if read.split.holds(read.split.key(chunk.shard, chunk.first + i))]
            parts.append(_usable(read, table.take(pa.array(held, pa.int64())), str(chunk), skipped))
    columns = [torch.from_numpy(np.concatenate(column)) for column in zip(*parts, strict=True)]
    return Rows(*columns, dict(skipped))


def _usable(read: SampleReader, table: pa.Table, where: str, skipped: Counter) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    targets = read.target(table[TARGET], where)
    teachers = read.teacher(table[KEPT.format(0)], where) if read.teacher else [-1] * len(table)
    errors = [
        error or (NO_TARGET if target is None or teacher is None else None)
        for error, target, teacher in zip(table[READ_ERROR].to_pylist(), targets, teachers, strict=True)
    ]
    skipped.update(error.split(":", 1)[0] for error in errors if error)
    good = [i for i, error in enumerate(errors) if not error]
    answers = (np.array([column[i] for i in good], np.int64) for column in (targets, teachers))
    return list_matrix(table[IMAGE_BYTES])[good], *answers
