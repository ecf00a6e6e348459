"""The image column, whatever its type, as encoded bytes and paths."""

import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.errors import SourceError
from levit_batch.job.config import SourceConfig
from levit_batch.sources.columns.types import is_bytes, is_text
from levit_batch.storage.url import printable


def check_image_type(kind: pa.DataType, config: SourceConfig) -> None:
    """Raises SourceError for a type that cannot hold images."""
    if not (_is_image_struct(kind) or is_bytes(kind) or _names_files(kind)):
        raise SourceError(
            f"source.image_column: {config.image_column} is {kind}; it must be struct{{bytes, path}}, binary, "
            "or a string with a path or URL"
        )


def check_paths(kind: pa.DataType, config: SourceConfig) -> None:
    """Raises SourceError for a column of nothing but paths or URLs where neither are looked up: no row would have an image."""
    if is_text(kind) and config.root is None and not config.allow_urls:
        raise SourceError(
            f"source.image_column: {config.image_column} is {kind}, the path of each image: set source.root to the folder that "
            "the paths are relative to (/ for absolute paths), or source.allow_urls=true where they are URLs"
        )


def image_cells(column: pa.Array | pa.ChunkedArray, config: SourceConfig) -> tuple[pa.Array, list[str | None]]:
    """Encoded bytes [N], null where there are none, and the path or URL [N] that may lead to them."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    check_image_type(kind, config)
    if _is_image_struct(kind):
        data = pc.struct_field(column, "bytes")
        paths = pc.struct_field(column, "path") if kind.get_field_index("path") >= 0 else None
    elif is_bytes(kind):
        data, paths = column, None
    else:
        data, paths = pa.nulls(len(column), pa.large_binary()), column
    data = data.cast(pa.large_binary())  # one type for all shards
    if paths is None or not data.null_count:
        return data, [None] * len(data)
    # Arrow does not check that text is UTF-8; Python does, and would refuse the whole column.
    names = [None if name is None else printable(name) for name in paths.cast(pa.large_binary()).to_pylist()]
    return data, names


def _is_image_struct(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    fields = {field.name: field.type for field in kind}
    good = "bytes" in fields and (is_bytes(fields["bytes"]) or pa.types.is_null(fields["bytes"]))
    return good and _names_files(fields.get("path", pa.string()))


def _names_files(kind: pa.DataType) -> bool:
    return is_text(kind) or pa.types.is_null(kind)
