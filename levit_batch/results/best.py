"""The best few of many rows, without keeping the others."""

from collections.abc import Callable
from typing import Any

import numpy as np

Pick = dict[str, Any]  # one row worth a look: shard, row, version (of the shard), label_name, score, target_name, error, ...


class Best:
    """The `n` rows with the smallest keys, best first, table after table. Of equal ones the earlier stays: no chance is in it."""

    def __init__(self, n: int):
        self.n = n
        self.kept: list[tuple[float, Pick]] = []

    def add(self, keys: np.ndarray, rows: np.ndarray, pick: Callable[[int], Pick]) -> None:
        """keys [M] belong to `rows` [M] of a table, whose i-th row is `pick(i)`."""
        if self.kept and len(self.kept) == self.n:  # most tables hold nothing better once the list is full
            better = keys < self.kept[-1][0]
            keys, rows = keys[better], rows[better]
        new = [(float(keys[i]), pick(int(rows[i]))) for i in np.argsort(keys, kind="stable")[: self.n]]
        self.kept = sorted([*self.kept, *new], key=lambda one: one[0])[: self.n]

    def picks(self) -> list[Pick]:
        return [pick for _, pick in self.kept]
