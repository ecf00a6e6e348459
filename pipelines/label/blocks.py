"""How chunks and records travel between Ray's stages: one row each, since Ray drops blocks without rows."""

import json
import pickle
from typing import Any

import numpy as np
import pyarrow as pa

from levit_batch.sources.columns.cells import cell_buffers

DECODED, RECORD = "pixels", "record"


def record_block(record: dict[str, Any]) -> pa.Table:
    return pa.table({RECORD: [json.dumps(record)]})


def pack(part: Any, pixels: np.ndarray) -> pa.Table:
    """`part` (anything that pickles) and its pixels uint8 [N,H,W,3] as one row, pixels not copied."""
    offsets = pa.py_buffer(np.array([0, pixels.nbytes], np.int64))
    cell = pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, pa.py_buffer(np.ascontiguousarray(pixels))])
    meta = pickle.dumps((part, pixels.shape))
    return pa.table({"part": pa.array([meta], pa.large_binary()), DECODED: cell})


def unpack(block: pa.Table) -> tuple[Any, np.ndarray]:
    """The inverse of `pack`; the pixels stay in Ray's shared memory, read-only."""
    part, shape = pickle.loads(block["part"][0].as_buffer())
    return part, np.frombuffer(cell_buffers(block[DECODED])[0], np.uint8).reshape(shape)
