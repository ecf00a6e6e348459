"""Rows of an output as texts for a terminal."""

from collections.abc import Collection, Sequence
from typing import Any

import pyarrow as pa
from rich.cells import cell_len

from levit_batch.results.page.formats import figure, plural
from pipelines.screen.console import console, table

NUMBERS = ("row", "score", "similarity", "uncertainty", "margin", "divergence", "outlier")  # columns set to the right
VALUES = 4  # of a long list that are shown
GAP = 2  # between columns

Texts = list[list[str]]


def cells(rows: pa.Table, names: list[str]) -> tuple[list[str], Texts]:
    """Column heads and texts of `rows`; class numbers as names, and the top labels with their scores in one column."""
    values, heads = rows.to_pydict(), {}
    if "label" not in values:
        heads["label_name"] = "label"
    if "top_labels" in values and "top_scores" in values:
        scores = values.pop("top_scores")
        values["top_labels"] = [_top(t, s, names) for t, s in zip(values["top_labels"], scores, strict=True)]
        heads["top_labels"] = "next"
    if "target" in values:
        values["target"] = [_classes(target, names) for target in values["target"]]
    head = [heads.get(name, name) for name in values]
    return head, [[_cell(value) for value in row] for row in zip(*values.values(), strict=True)]


def with_target_names(rows: pa.Table, names: list[str]) -> pa.Table:
    """`rows` with `target_name`, as the other commands give it, behind a `target`."""
    if "target" not in rows.schema.names:
        return rows
    texts = [_classes(target, names) for target in rows["target"].to_pylist()]
    return rows.add_column(rows.schema.names.index("target") + 1, "target_name", pa.array(texts, pa.string()))


def print_picks(title: str | None, head: Sequence[str], texts: Sequence[Sequence[str]], picks: Sequence[dict[str, Any]]) -> None:
    """A table of `picks`: `texts` [N][C] below `head` [C], then which row it is: what was kept of it, the name of its file
    first, shard and row. Of what else was kept as much as is wide enough."""
    kept = list(picks[0]["kept"]) if picks else []
    named = any(pick["name"] is not None for pick in picks)
    rows = [
        [*text, *(_cell(pick["kept"][name]) for name in kept), pick["shard"], str(pick["row"])]
        for text, pick in zip(texts, picks, strict=True)
    ]  # fmt: skip
    spare = range(len(head) + named, len(head) + len(kept))
    print_fitting(title, [*head, *kept, "shard", "row"], rows, spare)


def print_fitting(title: str | None, head: list[str], texts: Texts, spare: Collection[int] = ()) -> None:
    """A table whose columns `spare` are left out, the last first, where all are too wide for the screen."""
    out = console()
    widths = [max(map(cell_len, column)) + GAP for column in zip(head, *texts, strict=True)]
    shown = list(range(len(head)))
    for place in sorted(spare, reverse=True):
        if sum(widths[i] for i in shown) - GAP > out.width:
            shown.remove(place)
    head, texts = [head[i] for i in shown], [[row[i] for i in shown] for row in texts]
    out.print(table(title, head, texts, right=[i for i, name in enumerate(head) if name in NUMBERS]))


def _top(labels: list[int | None], scores: list[float | None], names: list[str]) -> str:
    """The labels after the first, which has a column of its own."""
    pairs = [(i, s) for i, s in zip(labels, scores, strict=True) if i is not None][1:3]
    return ", ".join(f"{names[i]} {s:.3f}" for i, s in pairs)


def _classes(target: int | list[int] | None, names: list[str]) -> str | None:
    several = target if isinstance(target, list) else [] if target is None else [target]
    return ", ".join(names[i] if 0 <= i < len(names) else str(i) for i in several) or None


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return figure(value, 3) if value else "0"
    if isinstance(value, list):
        shown = ", ".join(_cell(v) or "null" for v in value[:VALUES])
        return f"[{shown}{', …' if len(value) > VALUES else ''}]"
    if isinstance(value, bytes):
        return plural(len(value), "byte")
    return str(value)
