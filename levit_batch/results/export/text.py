"""An output as CSV or JSON lines, streamed: memory holds a chunk at a time."""

import base64
import datetime
import decimal
import json
import os
import re
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from levit_batch.errors import OutputError
from levit_batch.table.output import Output
from levit_batch.table.read import require_files, schema_of
from levit_batch.table.scan import scan_files

FORMULA = r"^([=+\-@＝＋－＠\t\r\n])"  # how a text begins that a spreadsheet would run

TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)


def new_folder(path: str) -> str:
    """Make the folder `path`. Raises OutputError when something is there already: an export replaces nothing."""
    try:
        os.makedirs(path, exist_ok=True)
        if os.listdir(path):
            raise OutputError(f"--out: {path} is not empty; name another folder, or delete it first")
    except OSError as e:
        raise OutputError(f"--out: {path} cannot be made: {e}") from None
    return path


def export_csv(output: Output, out: str) -> int:
    """Write `out`/rows.csv; returns the rows. Lists are JSON text; embeddings and logits are left out (see numpy).

    Texts are as `for_spreadsheets` makes them; JSON lines have them as they are.
    """
    files = require_files(output)
    columns = [field.name for field in schema_of(files[0]) if field.name not in ("embedding", "logits")]
    writer, rows = None, 0
    with open(os.path.join(new_folder(out), "rows.csv"), "wb") as file:
        for _, table in scan_files(files, columns):
            table = for_spreadsheets(pa.table({name: flat(table[name]) for name in table.schema.names}))
            writer = writer or pyarrow.csv.CSVWriter(file, table.schema)
            writer.write_table(table)
            rows += table.num_rows
        writer.close()
    return rows


def flat(column: pa.ChunkedArray) -> pa.ChunkedArray | pa.Array:
    """A column that CSV can hold: nested values and bytes become JSON text."""
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        values = [plain(value) for value in column.to_pylist()]
        return pa.array([None if v is None else json.dumps(v, ensure_ascii=False) for v in values], pa.string())
    return column.cast(kind.value_type) if pa.types.is_dictionary(kind) else column


def for_spreadsheets(table: pa.Table) -> pa.Table:
    """`table` with an apostrophe before each text and name that a spreadsheet would take for a formula."""
    columns = [_inert(column) if any(kind(column.type) for kind in TEXTS) else column for column in table.columns]
    return pa.table(columns, [re.sub(FORMULA, r"'\1", name) for name in table.schema.names])


def _inert(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.replace_substring_regex(column.cast(pa.large_string()), FORMULA, r"'\1")


def export_jsonl(output: Output, out: str) -> int:
    """Write `out`/rows.jsonl, one object a row with every column; returns the rows."""
    rows = 0
    with open(os.path.join(new_folder(out), "rows.jsonl"), "w", encoding="utf-8") as file:
        for _, table in scan_files(require_files(output)):
            for batch in table.to_batches(1024):
                file.writelines(json_line(row) for row in batch.to_pylist())
            rows += table.num_rows
    return rows


def json_line(row: dict[str, Any]) -> str:
    return json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """`value` in JSON's types: bytes as base64, times as ISO text, an all-null list (an error row's) and NaN as null."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value] if not value or any(item is not None for item in value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, float) and value - value != 0:
        return None
    if hasattr(value, "item"):  # a numpy float16
        return value.item()
    return value
