"""The rows of a table that are worth a look, kept while its chunks go by: the surest, the least sure, mistakes, errors."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.results.best import Best, Pick
from levit_batch.results.naming import Naming

SUREST, LEAST, MISTAKES, ERRORS = "surest", "least sure", "surest mistakes", "errors"
COLUMNS = ("shard", "row", "label", "label_name", "score", "target", "error")
SHOWN, SPARE = 12, 12  # of a group; spare ones take the place of those whose shard is replaced
ERROR_EXAMPLES = 3  # of each kind


class Looks:
    """The best `n` of each group, and some error rows of each kind. A pick has its `group`, and the `key` it is sorted by."""

    def __init__(self, n: int = SHOWN + SPARE):
        self.groups = {group: Best(n) for group in (SUREST, LEAST, MISTAKES)}
        self.errors: dict[str, Best] = {}

    def add(
        self, table: pa.Table, naming: Naming, version: str, image: Callable[[int], bytes | None] | None = None
    ) -> list[Pick]:
        """The rows of one chunk, whose shard has this version; returns the picks among them.

        image: the small picture (`image`) of a row of `table` without an error, asked for the picks only.
        """
        new = [pick for best, keys, rows, pick in self._keyed(table, naming, version) for pick in best.add(keys, rows, pick)]
        for pick in new:
            place = pick.pop("place")
            if image:
                pick["image"] = image(place) if pick["error"] is None else None
                pick["note"] = None if pick["image"] or pick["error"] else "no picture of it was kept"
        return new

    def _keyed(self, table: pa.Table, naming: Naming, version: str):
        """Each group with the keys of its rows in `table`, their places there, and what makes a pick of a place."""
        good = np.flatnonzero(pc.is_null(table["error"]).to_numpy())
        fine = table.take(pa.array(good))
        score, wrong = fine["score"].to_numpy(), _mistaken(fine)
        pick = functools.partial(pick_row, table, version, naming)
        yield self.groups[SUREST], -score, good, functools.partial(pick, SUREST)
        yield self.groups[LEAST], score, good, functools.partial(pick, LEAST)
        yield self.groups[MISTAKES], -score[wrong], good[wrong], functools.partial(pick, MISTAKES)
        kinds: dict[str, list[int]] = {}
        for i, error in enumerate(table["error"].to_pylist()):
            if error is not None:
                kinds.setdefault(error.split(":", 1)[0], []).append(i)
        for kind, rows in kinds.items():
            first = np.array(rows[:ERROR_EXAMPLES])
            yield self._errors(kind), np.zeros(len(first)), first, functools.partial(pick, ERRORS)

    def merge(self, picks: Iterable[Pick]) -> None:
        """Picks of other chunks, as `add` gave them."""
        for pick in picks:
            error = pick["group"] == ERRORS
            (self._errors(pick["error"].split(":", 1)[0]) if error else self.groups[pick["group"]]).merge([pick])

    def picks(self, n: int | None = SHOWN) -> list[Pick]:
        """The best `n` of each group (None: all that are kept), then error rows, kind after kind."""
        of_groups = [pick for best in self.groups.values() for pick in best.kept[:n]]
        return of_groups + [pick for kind in sorted(self.errors) for pick in self.errors[kind].kept]

    def _errors(self, kind: str) -> Best:
        return self.errors.setdefault(kind, Best(ERROR_EXAMPLES))


def _mistaken(good: pa.Table) -> np.ndarray:
    """Which rows [N] have one target that is not their label."""
    if "target" not in good.schema.names or not pa.types.is_integer(good.schema.field("target").type):
        return np.zeros(good.num_rows, bool)
    wrong = pc.and_(pc.not_equal(good["target"], good["label"]), pc.greater_equal(good["target"], 0))
    return pc.fill_null(wrong, False).to_numpy()


def pick_row(table: pa.Table, version: str, naming: Naming, group: str, i: int) -> Pick:
    """Row `i` of a chunk's `table`, which has some of COLUMNS and what `naming` reads, as a pick of `group`.

    Its `name` is the file's, or None where no column says it; `kept` has the columns that `naming` keeps.
    """
    wanted = [name for name in (*COLUMNS, *naming.columns) if name in table.schema.names]
    row: dict[str, Any] = table.select(wanted).slice(i, 1).to_pylist()[0]
    name, kept = row.get(naming.column), {name: row[name] for name in naming.kept}
    target, names = row.pop("target", None), naming.classes
    truths = target if isinstance(target, list) else [] if target is None else [target]
    pick: Pick = {column: row[column] for column in COLUMNS if column in row} | {"name": name, "kept": kept}
    pick["target_name"] = ", ".join(names[t] if 0 <= t < len(names) else str(t) for t in truths) or None
    return pick | {"version": version, "group": group, "place": i}
