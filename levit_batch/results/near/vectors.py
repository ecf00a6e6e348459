"""The embeddings of an output's good rows, block after block: however large its files, memory holds a few blocks."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from levit_batch.errors import OutputError
from levit_batch.storage.ahead import ahead
from levit_batch.table.output import Output
from levit_batch.table.read import ChunkFile, read_file, require_files, schema_of
from levit_batch.table.rows import list_matrix
from levit_batch.table.scan import is_large

Made = TypeVar("Made")
THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
CACHED = 2048  # rows whose float32 a core's cache holds: turned around faster than through memory
SMALLEST = np.float32(1e-30)  # what a length is divided by at least

Work = Callable[[ChunkFile, pa.Table, np.ndarray], Made]
Step = Callable[[str, int, int | None], None]  # told the part of the work, how much more of it is done, and of how much


def silent(part: str, more: int, total: int | None) -> None:
    """A step that nobody watches."""


def files_with_embeddings(output: Output) -> list[ChunkFile]:
    """Every chunk file. Raises OutputError when embeddings were not written."""
    files = require_files(output)
    if "embedding" not in schema_of(files[0]).names:
        raise OutputError(f"{output}: has no embeddings; label again with predict.embeddings=float16 (into a new output.path)")
    return files


def rows_of(files: Sequence[ChunkFile]) -> int | None:
    """The rows of `files` as their names tell them; None where one does not."""
    stops = [file.written.stop for file in files]
    return None if None in stops else sum(stops) - sum(file.written.first for file in files)


def over_vectors(files: Sequence[ChunkFile], columns: Sequence[str], work: Work) -> Iterator[Made]:
    """What `work(file, rows, vectors)` makes of each block, in the order of the table, on every core.

    A block is a row group, or a smaller file: `rows` [N] of `columns` are those without an error, `vectors` [N,D] their
    embeddings as they are stored.
    """
    read = list(dict.fromkeys([*columns, "error", "embedding"]))

    def made(piece: tuple[ChunkFile, int | None]) -> Made:
        file, group = piece
        rows, vectors = good_rows(read_file(file, read, group))
        return work(file, rows.select([name for name in columns if name in rows.schema.names]), vectors)

    with ThreadPoolExecutor(THREADS) as pool:
        for _, result in ahead(pool, made, _pieces(files), THREADS):
            yield result


def _pieces(files: Sequence[ChunkFile]) -> Iterator[tuple[ChunkFile, int | None]]:
    """The row groups of large files; small ones whole (None), of which the footer need not be read twice."""
    for file in files:
        if is_large(file):
            yield from ((file, group) for group in range(_groups(file)))
        else:
            yield file, None


def _groups(file: ChunkFile) -> int:
    try:
        with file.place.filesystem.open_input_file(file.place.path) as stream:
            return pq.read_metadata(stream).num_row_groups
    except (pa.ArrowInvalid, OSError) as e:
        raise OutputError(f"{file.place.url}: cannot be read ({e}); delete it and run the job again to write it anew") from e


def good_rows(table: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """The rows without an error, without their embeddings, and these [N,D] as they are stored: finite, see `output_table`."""
    vectors, good = list_matrix(table["embedding"]), pc.is_null(table["error"])
    rows = table.drop_columns("embedding")
    return (rows, vectors) if table["error"].null_count == len(good) else (rows.filter(good), vectors[good.to_numpy()])


def cosines(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Cosine similarities float32 [N] of `vectors` [N,D] to `query` [D]; 0 where one of them is zero."""
    made, query = np.empty(len(vectors), np.float32), unit(query[None])[0]
    for first in range(0, len(vectors), CACHED):
        part = vectors[first : first + CACHED].astype(np.float32)
        # einsum runs in this thread alone; a matrix product would start threads of its own beside ours.
        lengths = np.sqrt(np.einsum("nd,nd->n", part, part))
        made[first : first + CACHED] = np.einsum("nd,d->n", part, query) / np.maximum(lengths, SMALLEST)
    return made


def unit(vectors: np.ndarray) -> np.ndarray:
    """[N,D] -> float32 [N,D] of length 1, or zero."""
    vectors = vectors.astype(np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), SMALLEST)
