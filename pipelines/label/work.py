"""What travels between the driver and the replicas: the job, the chunk under way, its record. Light to import.

Chunks and records are blocks of one row each, since Ray drops blocks without rows.
"""

import base64
import json
import os
import pickle
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.job.chunks import Chunk
from levit_batch.job.config import JobConfig
from levit_batch.job.row import RowSpec
from levit_batch.sources.columns.cells import cell_buffers
from levit_batch.sources.source import Source
from levit_batch.table.attempts import Attempt
from levit_batch.table.output import Output
from levit_batch.table.stats import chunk_stats
from levit_batch.table.target_stats import with_unmatched

DECODED, RECORD = "pixels", "record"


@dataclass(frozen=True)
class Work:
    """Everything a worker needs to know about the job. Pickles; the model's weights travel apart."""

    config: JobConfig
    source: Source
    output: Output
    spec: RowSpec
    processor: dict[str, Any]
    targets: Any
    fingerprint: str
    run: str
    redo: bool = False  # label chunks that exist, too


@dataclass
class Part:
    """One chunk under way: its rows without the images, and the pixels of its good ones."""

    chunk: Chunk
    started: float
    attempt: Attempt = Attempt()
    cold: bool = False  # the first that its process decodes
    waited: float = 0.0  # seconds that the replica had nothing to compute before
    seconds: dict[str, float] = field(default_factory=dict)
    tables: list[pa.Table] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    bytes: int = 0
    missed: list[pa.Array] = field(default_factory=list)  # names of targets that match no class
    unmatched: list[dict[str, Any]] = field(default_factory=list)  # the same, counted in the table that is rescored

    def record(self, run: str, table: pa.Table, classes: int) -> dict[str, Any]:
        """What the driver, the file and the run's record are told of this chunk, whose rows are `table`."""
        missed, scores = pa.concat_arrays(self.missed) if self.missed else None, pc.min_max(table["score"]).as_py()
        stats = chunk_stats(table, classes, missed=missed)
        stats["target"] = with_unmatched(stats["target"], self.unmatched)
        return {
            "run": run,
            "chunk": str(self.chunk),
            "shard": self.chunk.shard,
            "first": self.chunk.first,
            "stop": self.chunk.first + len(self.errors),
            "rows": len(self.errors),
            "errors": stats["errors"],
            "stats": stats,
            "scores": [scores["min"], scores["max"]],
            "seconds": self.seconds,
            "bytes": self.bytes,
            "attempt": self.attempt.number,
            "begun_again": self.attempt.here > 1,
            "waited": self.waited,
            "started": self.started,
            "ended": time.time(),
            "node": socket.gethostname(),
            "pid": os.getpid(),
        }

    def spend(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds


def sent(output: Output, chunk: Chunk, record: dict[str, Any], size: int | None = None) -> dict[str, Any]:
    """The record of a chunk that is written, in a file of `size` bytes, as the driver is told of it."""
    size = output.chunk_place(chunk).info().size if size is None else size
    return record | {"file": output.chunk_name(chunk), "staged": chunk.staged, "written": size}


def as_json(picks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Picks with their image as text."""
    return [pick | {"image": pick["image"] and base64.b64encode(pick["image"]).decode()} for pick in picks]


def of_json(picks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The inverse of `as_json`."""
    return [pick | {"image": pick["image"] and base64.b64decode(pick["image"])} for pick in picks]


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
