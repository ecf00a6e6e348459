"""From a source's own columns to the standard ones: image bytes or the reason there are none, target, kept columns."""

import difflib

import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.config import SourceConfig
from levit_batch.errors import SourceError
from levit_batch.schema import IMAGE_BYTES, READ_ERROR, TARGET
from levit_batch.sources.images import image_bytes


def check_columns(schema: pa.Schema, config: SourceConfig) -> pa.Schema:
    """The schema of the kept columns. Raises SourceError naming a column that is not there, and the nearest that is."""
    find_type(schema, config.image_column, "source.image_column")
    if config.target_column:
        find_type(schema, config.target_column, "source.target_column")
    kept = [pa.field(name, find_type(schema, name, "source.keep_columns")) for name in config.keep_columns]
    return pa.schema(kept, metadata=schema.metadata)


def find_type(schema: pa.Schema, column: str, key: str) -> pa.DataType:
    """The type of `column`, where dots reach into structs."""
    parts = [column] if column in schema.names else column.split(".")
    if parts[0] not in schema.names:
        near = difflib.get_close_matches(parts[0], schema.names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"columns here: {', '.join(schema.names)}"
        raise SourceError(f"{key}: there is no column {column}; {hint}")
    kind = schema.field(parts[0]).type
    for part in parts[1:]:
        if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
            raise SourceError(f"{key}: there is no column {column}: {parts[0]} is {schema.field(parts[0]).type}")
        kind = kind.field(part).type
    return kind


def needed_columns(schema: pa.Schema, config: SourceConfig) -> list[str]:
    """The leaf columns that a job reads, for a reader that takes dotted names."""
    columns = [config.image_column, *config.keep_columns]
    if config.target_column:
        columns.append(config.target_column)
    return list(dict.fromkeys(columns))


def column_of(table: pa.Table | pa.RecordBatch, name: str) -> pa.Array | pa.ChunkedArray:
    """A column by name, where dots reach into structs."""
    if name in table.schema.names:
        return table.column(name)
    first, *rest = name.split(".")
    return pc.struct_field(table.column(first), rest)


def standard_table(table: pa.Table | pa.RecordBatch, config: SourceConfig) -> pa.Table:
    """The columns every stage after reading expects; rows stay where they are."""
    data, errors = image_bytes(column_of(table, config.image_column), config)
    columns = {IMAGE_BYTES: data, READ_ERROR: errors}
    if config.target_column:
        columns[TARGET] = column_of(table, config.target_column)
    for name in config.keep_columns:
        columns[name] = column_of(table, name)
    return pa.table(columns)
