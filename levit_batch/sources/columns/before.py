"""A table that is there already: its kept columns keep their types, whichever shard is the first one tonight."""

from contextlib import suppress
from typing import Any

import pyarrow as pa

from levit_batch.job.row import source_features, with_features
from levit_batch.sources.columns.types import is_number


def as_before(schema: pa.Schema, before: pa.Schema) -> pa.Schema:
    """`schema` with the columns of `before` (kept columns, dots reach into structs) in the types that they have there.

    A column that `schema` lacks stays away. What the metadata says of a column goes with its type.
    """
    features, known = source_features(schema), source_features(before)
    changed = False
    for column in before:
        parts = [column.name] if column.name in schema.names else column.name.split(".")
        at = schema.get_field_index(parts[0])  # -1 also where several are called so, which is refused elsewhere
        if at < 0 or (field := _retyped(schema.field(at), parts[1:], column.type)) == schema.field(at):
            continue
        schema, changed = schema.set(at, field), True
        features = {name: said for name, said in features.items() if name != column.name}
        features |= {column.name: known[column.name]} if column.name in known else {}
    return with_features(schema, features) if changed else schema


def _retyped(field: pa.Field, parts: list[str], kind: pa.DataType) -> pa.Field:
    """`field` with the type `kind`, or with what `parts` lead to inside of it."""
    if not parts:
        return field.with_type(kind)
    if not pa.types.is_struct(field.type):
        return field
    return field.with_type(pa.struct([_retyped(one, parts[1:], kind) if one.name == parts[0] else one for one in field.type]))


def numbers_as_before(rows: pa.Table, before: pa.Schema) -> pa.Table:
    """`rows` with each column of numbers in the type of `before`, where that holds all its values.

    For types that were only guessed from a text: one row more or less makes another type of all that a CSV holds.
    """
    for column in before:
        at = rows.schema.get_field_index(column.name)
        if at < 0 or not _exact(rows.schema.field(at).type, column.type):
            continue
        with suppress(pa.ArrowInvalid):  # a value is lost: the column stays as it is, and is refused
            rows = rows.set_column(at, column.name, rows.column(at).cast(column.type))
    return rows


def _exact(kind: pa.DataType, into: pa.DataType) -> bool:
    """Whether Arrow raises when a number of `kind` is another one in `into`: it rounds a double to a float without a word."""
    return is_number(kind) and is_number(into) and not (pa.types.is_floating(kind) and pa.types.is_floating(into))


def differs(column: str, here: Any, there: Any, before: pa.Schema | None) -> str:
    """What to say of a column that is `here` in a shard and `there` in the table, or where that has no say in the first shard."""
    if before is not None and column in before.names:
        return (
            f"column {column} is {here} here and {there} in the table that is there; write the shard with that type, or start "
            "afresh with --overwrite, which takes the types of the first shard"
        )
    return (
        f"column {column} is {here} here and {there} in the first shard; write all shards with one type, or drop "
        "the column from source.keep_columns"
    )
