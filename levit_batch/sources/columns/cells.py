"""The bytes in a binary column without copying them: a scalar's `as_buffer` would."""

import numpy as np
import pyarrow as pa


def cell_buffers(column: pa.Array | pa.ChunkedArray) -> list[memoryview | None]:
    """The cells [N] of a binary or large_binary column as views of its memory; None where null."""
    if isinstance(column, pa.ChunkedArray):  # joining chunks would copy them, even a single one
        return [cell for chunk in column.chunks for cell in cell_buffers(chunk)]
    offset_type = np.int64 if pa.types.is_large_binary(column.type) else np.int32
    _, offsets, data = column.buffers()
    edges = np.frombuffer(offsets, offset_type)[column.offset : column.offset + len(column) + 1].tolist()
    view = memoryview(data if data is not None else b"")
    valid = column.is_valid().to_pylist()
    return [view[edges[i] : edges[i + 1]] if valid[i] else None for i in range(len(column))]
