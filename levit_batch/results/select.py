"""Rows of an output for a person to look at."""

import difflib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.errors import ConfigError
from levit_batch.results.naming import naming_of
from levit_batch.results.where import Where
from levit_batch.table.output import Output
from levit_batch.table.read import job_of, require_files, schema_of
from levit_batch.table.scan import scan_files

COLUMNS = ("target", "label", "label_name", "score", "top_labels", "top_scores", "error")


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

    columns: None: the narrow ones, with what was kept from the source after shard and row, the file's name first.
    Reads chunk files in order until `n` rows are found, and of them only the columns that are shown or compared.
    """
    files, job = require_files(output), job_of(output)
    schema = schema_of(files[0])
    usual = ["shard", "row", *naming_of(job, schema, kept=True).kept, *COLUMNS]
    wanted = [name for name in columns or usual if name in schema.names or columns]
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
    parts = _first(scan_files(files, list(dict.fromkeys([*read, "error", "label_name"]))), conditions, n + 1)
    rows = pa.concat_tables(parts) if parts else schema.empty_table()
    return rows.select(wanted).slice(0, n), rows.num_rows > n


def _first(tables: Iterator, conditions: list[pc.Expression], n: int) -> list[pa.Table]:
    parts, rows = [], 0
    for _, table in tables:
        for condition in conditions:
            table = table.filter(condition)
        if table.num_rows:
            parts.append(table.slice(0, n - rows))
            rows += parts[-1].num_rows
        if rows >= n:
            break
    return parts


def _check_columns(names: list[str], schema: pa.Schema) -> None:
    for name in names:
        if name not in schema.names:
            raise ConfigError(f"--columns: there is no column {name}; columns here: {', '.join(schema.names)}")


def _known(label: str, names: list[str]) -> str:
    if label in names:
        return label
    near = difflib.get_close_matches(label, names, n=3, cutoff=0.4)
    near = near or [name for name in names if label.lower() in name.lower()][:3]
    hint = f"did you mean {' or '.join(near)}?" if near else f"the first are {', '.join(names[:5])}"
    raise ConfigError(f"--label: there is no class {label}; {hint}")
