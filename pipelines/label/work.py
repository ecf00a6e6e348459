"""What replicas are told of the job, and what they know of the chunk under way. Light to import."""

import os
import socket
import time
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from levit_batch.job.chunks import Chunk
from levit_batch.job.config import JobConfig
from levit_batch.job.row import RowSpec
from levit_batch.sources.source import Source
from levit_batch.table.output import Output


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
    attempt: int
    started: float
    waited: float = 0.0  # seconds that the replica had nothing to compute before
    seconds: dict[str, float] = field(default_factory=dict)
    tables: list[pa.Table] = field(default_factory=list)
    errors: list[str | None] = field(default_factory=list)
    bytes: int = 0
    unmatched: int = 0

    def record(self, stats: dict[str, Any]) -> dict[str, Any]:
        """What the driver, the file and the run's record are told of this chunk."""
        return {
            "chunk": str(self.chunk),
            "shard": self.chunk.shard,
            "first": self.chunk.first,
            "stop": self.chunk.first + len(self.errors),
            "rows": len(self.errors),
            "errors": stats["errors"],
            "stats": stats,
            "seconds": self.seconds,
            "bytes": self.bytes,
            "unmatched": self.unmatched,
            "attempt": self.attempt,
            "waited": self.waited,
            "started": self.started,
            "ended": time.time(),
            "node": socket.gethostname(),
            "pid": os.getpid(),
        }

    def spend(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
