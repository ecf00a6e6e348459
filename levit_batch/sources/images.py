"""The image column, whatever its type, as encoded bytes or the reason why a row has none."""

import os

import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.config import SourceConfig
from levit_batch.errors import SourceError
from levit_batch.storage import require_inside


def image_bytes(column: pa.Array | pa.ChunkedArray, config: SourceConfig) -> tuple[pa.Array, pa.Array]:
    """Encoded bytes [N] (null where there are none) and errors [N] ("kind: message", null where there are bytes)."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        data = pc.struct_field(column, "bytes")
        paths = pc.struct_field(column, "path") if kind.get_field_index("path") >= 0 else None
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        data, paths = column, None
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        data, paths = pa.nulls(len(column), pa.large_binary()), column
    else:
        raise SourceError(
            f"source.image_column: {config.image_column} is {kind}; it must be struct{{bytes, path}}, binary, or a string path"
        )
    if not data.null_count:
        return data, pa.nulls(len(data), pa.string())
    return _look_up(data, paths, config)


def _look_up(data: pa.Array, paths: pa.Array | None, config: SourceConfig) -> tuple[pa.Array, pa.Array]:
    """Fill the rows that have no bytes from the files that their paths name."""
    filled, errors = data.to_pylist(), [None] * len(data)
    for i in pc.indices_nonzero(data.is_null()).to_pylist():
        path = paths[i].as_py() if paths is not None else None
        filled[i], errors[i] = read_path(path, config)
    return pa.array(filled, pa.large_binary()), pa.array(errors, pa.string())


def read_path(path: str | None, config: SourceConfig) -> tuple[bytes | None, str | None]:
    """The bytes that `path` names below `source.root`, or the reason why not."""
    if not path:
        return None, "null: no image"
    if config.root is None:
        return None, f"missing: {path}: no bytes in the row, and source.root is not set to look the path up"
    try:
        with open(require_inside(path, config.root), "rb") as file:
            return file.read(), None
    except SourceError:
        return None, f"forbidden: {path} leaves source.root"
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None, f"missing: {path}: no such file below {os.path.basename(config.root) or config.root}"
    except (OSError, ValueError) as e:
        return None, f"unreadable: {path}: {e}"
