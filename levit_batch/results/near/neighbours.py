"""The nearest rows of every row, among those that share one of its two best labels: exact products, block by block.

The work is cut into parts that can be done anywhere, in any order, and kept when they are done (`kept.py`).
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from levit_batch.results.near.kept import Kept
from levit_batch.results.near.spill import Spilled
from levit_batch.results.near.vectors import THREADS, Step, silent, unit
from levit_batch.storage.ahead import ahead

BLOCK = 2048  # rows on either side of a product: 16 MB of similarities
PAIRS = 100_000_000  # that a part holds at least: seconds of a core
K = 10  # neighbours of a row, as cleanlab takes them

Near = tuple[np.ndarray, np.ndarray]  # distances float32 [R,k] and row numbers int32 [R,k]; inf and -1 where there are no more


@dataclass(frozen=True)
class Piece:
    """Rows members[first:stop], to be held against all `members` [M], the numbers of the rows that have a label."""

    members: np.ndarray
    first: int
    stop: int

    @property
    def rows(self) -> np.ndarray:
        return self.members[self.first : self.stop]

    @property
    def pairs(self) -> int:
        return len(self.rows) * len(self.members)


Part = list[Piece]
Work = Callable[[Spilled, int, Iterable[Part]], Iterator[tuple[Part, Near]]]  # the nearest of each part's rows, piece after piece


def neighbours(table: Spilled, k: int = K, step: Step = silent, work: Work | None = None, kept: Kept | None = None) -> Near:
    """Cosine distances, nearest first, and row numbers of the k nearest of each row [N,k].

    work: what does the parts; None: threads of this process. kept: what was done before, and takes what is done now.
    """
    near = np.full((len(table), k), np.inf, np.float32), np.full((len(table), k), -1, np.int32)
    parts = list(cut(table.top))
    pairs = sum(piece.pairs for part in parts for piece in part)
    left = []
    for number, part in enumerate(parts):
        if answer := kept and kept.read(number, (sum(len(piece.rows) for piece in part), k)):
            _take(near, part, answer)
            step("comparing", sum(piece.pairs for piece in part), pairs)
        else:
            left.append(number)
    done = (work or in_threads)(table, k, [parts[number] for number in left])
    for number, (part, answer) in zip(left, done, strict=True):
        if kept:
            kept.write(number, answer)
        _take(near, part, answer)
        step("comparing", sum(piece.pairs for piece in part), pairs)
    return near


def _take(near: Near, part: Part, answer: Near) -> None:
    """Merge the nearest of a part's rows into those of all."""
    at = 0
    for piece in part:
        new = tuple(kind[at : at + len(piece.rows)] for kind in answer)
        near[0][piece.rows], near[1][piece.rows] = merged((near[0][piece.rows], near[1][piece.rows]), new)
        at += len(piece.rows)


def cut(top: np.ndarray) -> Iterator[Part]:
    """The work on rows with labels `top` [N,2], in parts of `PAIRS` pairs or more: some labels, or some rows of a large one."""
    part: Part = []
    for members in _by_label(top):
        rows = max(PAIRS // (len(members) * BLOCK), 1) * BLOCK
        for first in range(0, len(members), rows):
            part.append(Piece(members, first, min(first + rows, len(members))))
            if sum(piece.pairs for piece in part) >= PAIRS:
                yield part
                part = []
    if part:
        yield part


def _by_label(top: np.ndarray) -> Iterator[np.ndarray]:
    """The row numbers that have a label among their best two, label after label."""
    flat = top.reshape(-1)
    order = np.argsort(flat, kind="stable")
    starts = np.flatnonzero(np.diff(flat[order], prepend=-2))
    for members, label in zip(np.split(order, starts[1:]), flat[order[starts]], strict=True):
        if label >= 0:
            yield (members // top.shape[1]).astype(np.int32)


def in_threads(table: Spilled, k: int, parts: Iterable[Part]) -> Iterator[tuple[Part, Near]]:
    """Each part in one thread, on every core."""

    def made(part: Part) -> Near:
        return joined([nearest(table.vectors, piece, k) for piece in part])

    with ThreadPoolExecutor(THREADS, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        yield from ahead(pool, made, parts, 2 * THREADS)


def joined(parts: list[Near]) -> Near:
    return tuple(np.concatenate(kind) for kind in zip(*parts, strict=True))


def nearest(vectors: np.ndarray, piece: Piece, k: int) -> Near:
    """The k nearest of a piece's members to each of its rows [R], without the row itself. vectors: by row number."""
    return joined([_nearest(vectors, rows, piece.members, k) for rows in _blocks(piece.rows)])


def _blocks(members: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(members), BLOCK):
        yield members[first : first + BLOCK]


def _nearest(vectors: np.ndarray, rows: np.ndarray, members: np.ndarray, k: int) -> Near:
    """The same of a block of `rows` [R]; row numbers ascend."""
    ours = torch.from_numpy(unit(vectors[rows]))
    near = np.full((len(rows), k), np.inf, np.float32), np.full((len(rows), k), -1, np.int32)
    for others in _blocks(members):
        similar = ours @ torch.from_numpy(unit(vectors[others])).T
        _, itself, where = np.intersect1d(rows, others, assume_unique=True, return_indices=True)
        similar[itself, where] = -torch.inf
        best, at = similar.topk(min(k, len(others)), dim=1)
        distance = (1 - best.numpy()).clip(0)
        near = merged(near, (distance, np.where(np.isinf(distance), -1, others[at.numpy()])))
    return near


def merged(one: Near, other: Near) -> Near:
    """The k nearest of two lists, of which `one` is k long, each row once: pairs may share both labels.

    Of equal distances the lower row numbers, so that the order of merging does not matter.
    """
    k = one[0].shape[1]
    distance, place = (np.concatenate(kind, axis=1) for kind in zip(one, other, strict=True))
    order = np.lexsort((distance, place))
    distance, place = np.take_along_axis(distance, order, 1), np.take_along_axis(place, order, 1)
    distance[:, 1:][place[:, 1:] == place[:, :-1]] = np.inf
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    distance, place = np.take_along_axis(distance, order, 1), np.take_along_axis(place, order, 1)
    return distance, np.where(np.isinf(distance), -1, place).astype(np.int32)
