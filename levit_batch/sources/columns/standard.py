"""From a source's own columns to the standard ones: image bytes or the reason there are none, target, kept columns."""

import difflib
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from levit_batch.errors import SourceError
from levit_batch.job.config import SourceConfig
from levit_batch.job.row import IMAGE_BYTES, KEPT, READ_ERROR, TARGET, check_kept_names, source_features
from levit_batch.sources.columns.before import differs
from levit_batch.sources.columns.images import check_image_type
from levit_batch.sources.columns.types import cast, fits, has_list_views, plain, without_lengths


def check_columns(schema: pa.Schema, config: SourceConfig) -> pa.Schema:
    """The kept columns of `schema`. Raises SourceError naming a column that is not there, and the nearest that is;
    ConfigError for kept columns that cannot both be written."""
    check_kept_names(config.keep_columns)
    check_image_type(find_type(schema, config.image_column, "source.image_column"), config)
    if config.target_column:
        find_type(schema, config.target_column, "source.target_column")
    kept = [pa.field(name, _kept_type(schema, name)) for name in config.keep_columns]
    return pa.schema(kept, metadata=schema.metadata)


def _kept_type(schema: pa.Schema, column: str) -> pa.DataType:
    """The type in which `column` is kept. Raises SourceError where there is none: what Parquet cannot hold is written in
    neither format."""
    kind = find_type(schema, column, "source.keep_columns")
    if not _writable(kind):
        raise SourceError(
            f"source.keep_columns: {column} is {kind}, which is not written, as too few readers know it; leave it out"
        )
    return plain(kind)


def _writable(kind: pa.DataType) -> bool:
    """Whether a column of `kind` can be made plain and be written to Parquet: asked of Arrow itself."""
    try:
        cast(pa.schema([("column", kind)]).empty_table().column(0), plain(kind))
        pq.write_table(pa.table({"column": pa.nulls(1, plain(kind))}), io.BytesIO())
    except (pa.ArrowException, OSError):
        return False
    return not has_list_views(kind)


def kept_as_written(kept: pa.Schema, format: str) -> pa.Schema:
    """The types in which an output of `format` has the kept columns: in Parquet, lists have no fixed size, as pyarrow
    before 26 cannot read a null one from there. Nor have they in what the source's metadata says of them."""
    if format != "parquet":
        return kept
    fields = [field.with_type(without_lengths(field.type)) for field in kept]
    features = {name: _without_lengths(feature) for name, feature in source_features(kept).items()}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _without_lengths(feature: Any) -> Any:
    if isinstance(feature, list):
        return [_without_lengths(one) for one in feature]
    if not isinstance(feature, dict):
        return feature
    return {k: _without_lengths(v) for k, v in feature.items() if k != "length" or isinstance(v, dict | list)}


def check_same(schema: pa.Schema, like: pa.Schema, config: SourceConfig, before: pa.Schema | None = None) -> None:
    """Refuse a shard whose columns cannot be read as those of `like` without loss. Raises SourceError.

    like: the first shard's columns, but for those of a table that is there (before), see `Source.like`.
    """
    check_columns(schema, config)
    for name in [*config.keep_columns, *([config.target_column] if config.target_column else [])]:
        here, there = plain(find_type(schema, name, "")), plain(find_type(like, name, ""))
        if not fits(here, there):
            raise SourceError(differs(name, here, there, before))


def find_type(schema: pa.Schema, column: str, key: str) -> pa.DataType:
    """The type of `column`, where dots reach into structs."""
    parts = [column] if column in schema.names else column.split(".")
    if parts[0] not in schema.names:
        near = difflib.get_close_matches(parts[0], schema.names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else f"columns here: {', '.join(schema.names)}"
        raise SourceError(f"{key}: there is no column {column}; {hint}")
    if schema.names.count(parts[0]) > 1:
        raise SourceError(f"{key}: several columns are called {parts[0]}, so which is meant is not known; rename them")
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


def standard_table(
    table: pa.Table | pa.RecordBatch,
    config: SourceConfig,
    like: pa.Schema,
    images: tuple[pa.Array, pa.Array],
) -> pa.Table:
    """The columns every stage after reading expects; rows stay where they are.

    like: the source's schema, whose types the target and the kept columns get.
    images: encoded bytes [N] (null where there are none) and errors [N] ("kind: message", null where there are bytes).
    """
    columns = dict(zip((IMAGE_BYTES, READ_ERROR), images, strict=True))
    for output, name in _carried(config):
        columns[output] = cast(column_of(table, name), plain(find_type(like, name, "source")))
    return pa.table(columns)


def error_table(rows: int, error: str, config: SourceConfig, like: pa.Schema) -> pa.Table:
    """Rows that could not be read, as rows: their images are null and `error` says why."""
    columns = {IMAGE_BYTES: pa.nulls(rows, pa.large_binary()), READ_ERROR: pa.array([error] * rows, pa.string())}
    for output, name in _carried(config):
        columns[output] = pa.nulls(rows, plain(find_type(like, name, "source")))
    return pa.table(columns)


def _carried(config: SourceConfig) -> list[tuple[str, str]]:
    """The columns that travel from the source to the output: under which name, and which they are."""
    target = [(TARGET, config.target_column)] if config.target_column else []
    return target + [(KEPT.format(i), name) for i, name in enumerate(config.keep_columns)]


def label_names(schema: pa.Schema, column: str) -> list[str] | None:
    """The class names that a schema's Hugging Face features give to `column` (`ClassLabel`, or a list of it)."""
    try:
        feature: Any = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        for part in [column] if column in feature else column.split("."):
            feature = feature[part]
    except (ValueError, KeyError, TypeError):
        return None
    while isinstance(feature, list) or (isinstance(feature, dict) and isinstance(feature.get("feature"), dict | list)):
        feature = feature[0] if isinstance(feature, list) and feature else feature["feature"]
    return feature.get("names") if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" else None
