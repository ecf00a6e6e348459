"""Rows of an output for a person to look at."""

import difflib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.errors import ConfigError
from levit_batch.results.page.formats import figure
from levit_batch.results.where import Where
from levit_batch.table.output import Output
from levit_batch.table.read import job_of, require_files, scan_files, schema_of

COLUMNS = ("shard", "row", "target", "label_name", "score", "top_labels", "top_scores", "error")
VALUES = 4  # of a long list that are shown


def select(
    output: Output,
    *,
    columns: Sequence[str] | None = None,
    where: str | None = None,
    label: str | None = None,
    errors: bool = False,
    n: int = 20,
) -> tuple[pa.Table, bool]:
    """The first `n` rows that meet every condition, and whether there may be more. Raises ConfigError for a wrong condition.

    Reads chunk files in order until `n` rows are found, and of them only the columns that are shown or compared.
    """
    files, job = require_files(output), job_of(output)
    schema = schema_of(files[0])
    wanted = [name for name in columns or COLUMNS if name in schema.names or columns]
    _check_columns(wanted, schema)
    conditions, read = [], list(wanted)
    if errors:
        conditions.append(pc.field("error").is_valid())
    if label is not None:
        conditions.append(pc.field("label_name") == _known(label, job["class_names"]))
    if where:
        condition = Where(where, schema)
        conditions.append(condition.expression)
        read += condition.columns
    tables = _first(scan_files(files, list(dict.fromkeys([*read, "error", "label_name"]))), conditions, n + 1)
    rows = pa.concat_tables(tables) if tables else schema.empty_table()
    return rows.select(wanted).slice(0, n), rows.num_rows > n


def _first(tables: Iterator, conditions: list[pc.Expression], n: int) -> list[pa.Table]:
    kept, rows = [], 0
    for _, table in tables:
        for condition in conditions:
            table = table.filter(condition)
        if table.num_rows:
            kept.append(table.slice(0, n - rows))
            rows += kept[-1].num_rows
        if rows >= n:
            break
    return kept


def _check_columns(names: list[str], schema: pa.Schema) -> None:
    for name in names:
        if name not in schema.names:
            raise ConfigError(f"--columns: there is no column {name}; columns here: {', '.join(schema.names)}")


def _known(label: str, names: list[str]) -> str:
    if label in names:
        return label
    near = (
        difflib.get_close_matches(label, names, n=3, cutoff=0.4) or [n for n in names if label.lower() in n.lower()][:3]
    )
    hint = f"did you mean {' or '.join(near)}?" if near else f"the first are {', '.join(names[:5])}"
    raise ConfigError(f"--label: there is no class {label}; {hint}")


def cells(rows: pa.Table, names: list[str]) -> tuple[list[str], list[list[str]]]:
    """Column heads and texts of `rows`; class numbers as names, and the top labels with their scores in one column."""
    values = rows.to_pydict()
    if "top_labels" in values and "top_scores" in values:
        scores = values.pop("top_scores")
        values["top_labels"] = [_top(t, s, names) for t, s in zip(values["top_labels"], scores, strict=True)]
    if "target" in values:
        values["target"] = [_classes(target, names) for target in values["target"]]
    head = [{"label_name": "label", "top_labels": "next"}.get(name, name) for name in values]
    return head, [[_cell(value) for value in row] for row in zip(*values.values(), strict=True)]


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
        return f"{len(value):,} bytes"
    return str(value)
