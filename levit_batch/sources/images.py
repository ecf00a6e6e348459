"""The image column, whatever its type, as encoded bytes or the reason why a row has none."""

from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.config import SourceConfig
from levit_batch.errors import SourceError
from levit_batch.sources.lookup import read_path
from levit_batch.storage import scheme

REMOTE_READS = 8  # at a time, in one replica


def check_image_type(kind: pa.DataType, config: SourceConfig) -> None:
    """Raises SourceError for a type that cannot hold images."""
    if not (_is_image_struct(kind) or _is_bytes(kind) or _is_text(kind)):
        raise SourceError(
            f"source.image_column: {config.image_column} is {kind}; it must be struct{{bytes, path}}, binary, "
            "or a string with a path or URL"
        )


def image_bytes(column: pa.Array | pa.ChunkedArray, config: SourceConfig) -> tuple[pa.Array, pa.Array]:
    """Encoded bytes [N] (null where there are none) and errors [N] ("kind: message", null where there are bytes)."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    check_image_type(kind, config)
    if _is_image_struct(kind):
        data = pc.struct_field(column, "bytes")
        paths = pc.struct_field(column, "path") if kind.get_field_index("path") >= 0 else None
    elif _is_bytes(kind):
        data, paths = column, None
    else:
        data, paths = pa.nulls(len(column), pa.large_binary()), column
    data = data.cast(pa.large_binary())  # one type for all shards
    if not data.null_count:
        return data, pa.nulls(len(data), pa.string())
    return _look_up(data, paths, config)


def _look_up(data: pa.Array, paths: pa.Array | None, config: SourceConfig) -> tuple[pa.Array, pa.Array]:
    """Fill the rows that have no bytes from the files that their paths name."""
    filled, errors = data.to_pylist(), [None] * len(data)
    rows = pc.indices_nonzero(data.is_null()).to_pylist()
    names = [paths[i].as_py() if paths is not None else None for i in rows]
    remote = scheme(config.root or "") or any(name and "://" in name for name in names)
    if remote:
        with ThreadPoolExecutor(REMOTE_READS) as pool:
            found = list(pool.map(lambda name: read_path(name, config), names))
    else:
        found = [read_path(name, config) for name in names]
    for i, (image, error) in zip(rows, found, strict=True):
        filled[i], errors[i] = image, error
    return pa.array(filled, pa.large_binary()), pa.array(errors, pa.string())


def _is_image_struct(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind):
        return False
    fields = {field.name: field.type for field in kind}
    good = "bytes" in fields and (_is_bytes(fields["bytes"]) or pa.types.is_null(fields["bytes"]))
    return good and _is_text(fields.get("path", pa.string()))


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_text(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return text or pa.types.is_null(kind)
