"""A table's good rows by number: narrow columns in memory (some 30 bytes a row), embeddings in a file on the local disk."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import xxhash

from levit_batch.table.rows import list_matrix


@dataclass(frozen=True)
class Spilled:
    """N rows in the order of the table. vectors [N,D], as they were stored, are read from the file when they are used.

    shard, version [N]: numbers into `shards` and `versions`; row [N]: within the shard; top [N,2]: the best labels, -1 for none;
    phash int64 [N]: perceptual hashes, where the table has them.
    """

    vectors: np.ndarray
    shards: list[str]
    versions: list[str]
    shard: np.ndarray
    version: np.ndarray
    row: np.ndarray
    top: np.ndarray
    phash: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.row)

    def names(self, places: np.ndarray) -> pa.Array:
        """The shards of rows [M]; null for -1."""
        return pa.array(self.shards, pa.string()).take(pa.array(self.shard[places], mask=places < 0))


class Spill:
    """Takes the blocks of a scan one after the other. state: the hash of all vectors and labels so far."""

    def __init__(self, folder: str):
        self.file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (`spilling` closes it)
        self.shape: tuple[int, np.dtype] | None = None
        self.parts: list[tuple[np.ndarray, ...]] = []
        self.state = xxhash.xxh3_128()
        self.shards: dict[str, int] = {}
        self.versions: dict[str, int] = {}

    def add(self, version: str, rows: pa.Table, vectors: np.ndarray) -> None:
        """rows [M]: shard (one), row, top_labels and maybe image_phash. vectors: [M,D]."""
        if not rows.num_rows:
            return
        self.shape = vectors.shape[1], vectors.dtype
        data, top = np.ascontiguousarray(vectors), np.ascontiguousarray(best_two(rows))
        self.file.write(data.data)
        for part in (data, top):
            self.state.update(part.view(np.uint8))
        shard = self.shards.setdefault(rows["shard"][0].as_py(), len(self.shards))
        number = self.versions.setdefault(version, len(self.versions))
        same = np.full((2, rows.num_rows), [[shard], [number]], np.int32)
        phash = [rows["image_phash"].to_numpy()] if "image_phash" in rows.schema.names else []
        self.parts.append((*same, rows["row"].to_numpy(), top, *phash))

    def done(self) -> Spilled:
        self.file.flush()
        shard, version, row, top, *phash = (np.concatenate(kind) for kind in zip(*self.parts, strict=True))
        width, kind = self.shape
        vectors = np.memmap(self.file, kind, "r", shape=(len(row), width))
        return Spilled(vectors, list(self.shards), list(self.versions), shard, version, row, top, *phash)


@contextmanager
def spilling(folder: str | None = None) -> Iterator[Spill]:
    """A spill whose file is gone afterwards, however the process ends."""
    spill = Spill(folder or tempfile.gettempdir())
    with spill.file:
        yield spill


def best_two(rows: pa.Table) -> np.ndarray:
    """The best two labels int32 [M,2] of rows with `top_labels`; -1 where a table keeps one only."""
    labels = list_matrix(rows["top_labels"])[:, :2]
    return np.pad(labels, ((0, 0), (0, 2 - labels.shape[1])), constant_values=-1).astype(np.int32)
