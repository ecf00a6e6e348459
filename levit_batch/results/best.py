"""The best few of many rows, without keeping the others."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Pick = dict[str, Any]  # one row worth a look: shard, row, its file's name, version (of the shard), label_name, score, error, ...


class Best:
    """The `n` rows with the smallest keys, best first, whatever order they come in: of equal ones the first by shard and row."""

    def __init__(self, n: int):
        self.n = n
        self.kept: list[Pick] = []

    @property
    def limit(self) -> float:
        """A row with a larger key is not among the best."""
        return self.kept[-1]["key"] if self.n and len(self.kept) == self.n else math.inf

    def add(self, keys: np.ndarray, rows: np.ndarray, pick: Callable[[int], Pick]) -> list[Pick]:
        """keys [M] belong to `rows` [M] of a table, in order, whose i-th row is `pick(i)`. Returns those that are kept."""
        fine = keys <= self.limit  # most tables hold nothing better once the list is full
        keys, rows = keys[fine], rows[fine]
        first = np.argsort(keys, kind="stable")[: self.n]
        return self.merge([pick(int(rows[i])) | {"key": float(keys[i])} for i in first])

    def merge(self, picks: Iterable[Pick]) -> list[Pick]:
        """The same with picks that have their `key`."""
        picks = list(picks)
        self.kept = sorted([*self.kept, *picks], key=lambda one: (one["key"], one["shard"], one["row"]))[: self.n]
        chosen = {id(pick) for pick in self.kept}
        return [pick for pick in picks if id(pick) in chosen]
