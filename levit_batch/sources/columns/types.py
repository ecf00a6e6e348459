"""Which Arrow types hold every value of which others: shards of one source may differ that far, and readers need it."""

from collections.abc import Callable

import pyarrow as pa
import pyarrow.compute as pc

WHOLE_BITS = {"halffloat": 11, "float": 24, "double": 53}  # integers up to 2**bits are exact in a float


def plain(kind: pa.DataType) -> pa.DataType:
    """`kind` as every reader opens it: views become the types they are views of, at any depth; runs are written out."""
    if pa.types.is_run_end_encoded(kind):
        return plain(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    return _inside(kind, plain)


def has_list_views(kind: pa.DataType) -> bool:
    """Whether `kind` holds list views: polars cannot open them, and Arrow (26) casts them to lists that are not valid."""
    if pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
        return True
    inside: list[bool] = []
    _inside(kind, lambda part: inside.append(has_list_views(part)) or part)
    return any(inside)


def without_lengths(kind: pa.DataType) -> pa.DataType:
    """`kind` with lists of any length in place of lists of a fixed one, at any depth."""
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_changed(kind.value_field, without_lengths))
    return _inside(kind, without_lengths)


def _inside(kind: pa.DataType, change: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """`kind` with `change` done to the types that it is made of."""
    if pa.types.is_struct(kind):
        return pa.struct([_changed(field, change) for field in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_changed(kind.value_field, change), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(_changed(kind.value_field, change))
    if pa.types.is_list(kind):
        return pa.list_(_changed(kind.value_field, change))
    if pa.types.is_map(kind):
        return pa.map_(_changed(kind.key_field, change), _changed(kind.item_field, change), kind.keys_sorted)
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, change(kind.value_type), kind.ordered)
    return kind


def _changed(field: pa.Field, change: Callable[[pa.DataType], pa.DataType]) -> pa.Field:
    return field.with_type(change(field.type))


def cast(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    """`column` as `kind`; run-end-encoded ones too, which Arrow itself does not cast."""
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    return column.cast(kind)


def fits(kind: pa.DataType, into: pa.DataType) -> bool:
    """Whether every value of `kind` can be cast to `into` and is still the same value."""
    if kind == into or pa.types.is_null(kind):
        return True
    if pa.types.is_dictionary(kind):
        return fits(kind.value_type, into)
    if is_text(kind) or is_bytes(kind):
        return is_text(into) if is_text(kind) else is_bytes(into)
    if is_list(kind) and is_list(into):
        sizes_fit = not pa.types.is_fixed_size_list(into) or getattr(kind, "list_size", None) == into.list_size
        return sizes_fit and fits(kind.value_type, into.value_type)
    if pa.types.is_map(kind) and pa.types.is_map(into):
        return fits(kind.key_type, into.key_type) and fits(kind.item_type, into.item_type)
    if pa.types.is_struct(kind) and pa.types.is_struct(into):
        same = [field.name for field in kind] == [field.name for field in into]
        return same and all(fits(a.type, b.type) for a, b in zip(kind, into, strict=True))
    return _number_fits(kind, into)


def _number_fits(kind: pa.DataType, into: pa.DataType) -> bool:
    if pa.types.is_floating(kind):
        return pa.types.is_floating(into) and kind.bit_width <= into.bit_width
    if not pa.types.is_integer(kind):
        return False
    bits = kind.bit_width - pa.types.is_signed_integer(kind)  # magnitude
    if pa.types.is_floating(into):
        return bits <= WHOLE_BITS[str(into)]
    if not pa.types.is_integer(into) or (pa.types.is_signed_integer(kind) and not pa.types.is_signed_integer(into)):
        return False
    return bits <= into.bit_width - pa.types.is_signed_integer(into)


def is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
