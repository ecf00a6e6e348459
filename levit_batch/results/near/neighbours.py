"""The nearest rows of every row, among those that share one of its two best labels: exact products, block by block."""

from collections.abc import Iterator

import numpy as np
import torch

from levit_batch.results.near.spill import Spilled
from levit_batch.results.near.vectors import Step, silent, unit

BLOCK = 4096  # rows on either side of a product: 64 MB of similarities
K = 10  # neighbours of a row, as cleanlab takes them


def neighbours(table: Spilled, k: int = K, step: Step = silent) -> tuple[np.ndarray, np.ndarray]:
    """Cosine distances float32 [N,k], nearest first, and row numbers int32 [N,k]; inf and -1 where there are no more."""
    distances = np.full((len(table), k), np.inf, np.float32)
    places = np.full((len(table), k), -1, np.int32)
    pairs = sum(len(members) ** 2 for members in _by_label(table.top))
    for members in _by_label(table.top):
        for rows in _blocks(members):
            near, where = _nearest(table.vectors, rows, members, k)
            distances[rows], places[rows] = _merged((distances[rows], places[rows]), (near, where), k)
            step("comparing", len(rows) * len(members), pairs)
    return distances, places


def _by_label(top: np.ndarray) -> Iterator[np.ndarray]:
    """The row numbers that have a label among their best two, label after label."""
    flat = top.reshape(-1)
    order = np.argsort(flat, kind="stable")
    starts = np.flatnonzero(np.diff(flat[order], prepend=-2))
    for members, label in zip(np.split(order, starts[1:]), flat[order[starts]], strict=True):
        if label >= 0:
            yield (members // top.shape[1]).astype(np.int32)


def _blocks(members: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(members), BLOCK):
        yield members[first : first + BLOCK]


def _nearest(vectors, rows: np.ndarray, members: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of `members` to each of `rows` [R], which are some of them, without the row itself."""
    ours = torch.from_numpy(unit(vectors[rows]))
    found = np.full((len(rows), k), np.inf, np.float32), np.full((len(rows), k), -1, np.int32)
    for others in _blocks(members):
        similar = ours @ torch.from_numpy(unit(vectors[others])).T
        if others[0] == rows[0]:
            similar.fill_diagonal_(-torch.inf)
        best, at = similar.topk(min(k, len(others)), dim=1)
        distance = (1 - best.numpy()).clip(0)
        found = _merged(found, (distance, np.where(np.isinf(distance), -1, others[at.numpy()])), k)
    return found


def _merged(one: tuple, other: tuple, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest of two lists of distances [R,..] and row numbers [R,..], each number once: pairs may share both labels."""
    distance, place = (np.concatenate(kind, axis=1) for kind in zip(one, other, strict=True))
    order = np.lexsort((distance, place))
    distance, place = np.take_along_axis(distance, order, 1), np.take_along_axis(place, order, 1)
    distance[:, 1:][place[:, 1:] == place[:, :-1]] = np.inf
    order = np.argsort(distance, axis=1, kind="stable")[:, :k]
    distance, place = np.take_along_axis(distance, order, 1), np.take_along_axis(place, order, 1)
    return distance, np.where(np.isinf(distance), -1, place).astype(np.int32)


def groups(first: np.ndarray, second: np.ndarray, n: int) -> np.ndarray:
    """The group int32 [n] of each of n rows of which the pairs (first, second) [P] belong together: its lowest row number."""
    group = np.arange(n, dtype=np.int32)
    while True:
        before = group.copy()
        least = np.minimum(group[first], group[second])
        np.minimum.at(group, group[first], least)
        np.minimum.at(group, group[second], least)
        group = group[group]
        if np.array_equal(group, before):
            return group
