"""The rows of a finished output, in order, however many they are and however they lie in files."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq

from levit_batch.storage.ahead import ahead
from levit_batch.storage.place import Place
from levit_batch.table.output import Output
from levit_batch.table.read import ChunkFile, read_file, require_files, unreadable
from levit_batch.table.write import ROW_GROUP_ROWS

PART_ROWS = 8192  # of a file, at once; of default chunks four, which are read whole
STREAM_BYTES = 8 << 20  # of an Arrow file that a store is asked for at once
AHEAD = 4  # files read or opened ahead of the one in use: hides an object store's latency, holds a few narrow tables

Opened = pq.ParquetFile | pa.RecordBatchReader


def scan(output: Output, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Tables of the output's rows in order, see `scan_files`, holding those of `columns` that the output has."""
    for _, table in scan_files(require_files(output), columns):
        yield table


def scan_files(
    files: Sequence[ChunkFile], columns: Sequence[str] | None = None
) -> Iterator[tuple[ChunkFile, pa.Table]]:
    """Each of `files` with its table, in order, a few read ahead; one of many rows again and again, with its next rows.

    Memory grows neither with the number of files nor with the rows of one.
    """
    with ThreadPoolExecutor(AHEAD) as pool:
        for in_parts, some in groupby(files, lambda file: _longer(file, PART_ROWS)):
            if in_parts:
                for file, opened in ahead(pool, lambda file: _open(file.place), some, AHEAD):
                    yield from ((file, table) for table in _parts(file.place, opened, columns))
            else:
                yield from ahead(pool, lambda file: read_file(file, columns), some, AHEAD)


def is_large(file: ChunkFile) -> bool:
    """Whether it may have more than one row group."""
    return _longer(file, ROW_GROUP_ROWS) and file.place.path.endswith(".parquet")


def _longer(file: ChunkFile, rows: int) -> bool:
    """Whether it may have more than so many rows."""
    return file.written.stop is None or file.written.stop - file.written.first > rows


def _open(at: Place) -> Opened:
    """A file of which no rows are read yet. It is closed when nobody holds it any more, be it read or not."""
    try:
        if at.path.endswith(".parquet"):
            # A disk gives what is asked for when it is; a store would be asked again for each column.
            return pq.ParquetFile(at.filesystem.open_input_file(at.path), pre_buffer=not at.local)
        if at.local:
            return pa.ipc.open_stream(pa.memory_map(at.path))
        # Without a buffer a store would be asked three times for each batch.
        return pa.ipc.open_stream(at.filesystem.open_input_stream(at.path, compression=None, buffer_size=STREAM_BYTES))
    except (pa.ArrowInvalid, OSError) as e:
        raise unreadable(at, e) from e


def _parts(at: Place, opened: Opened, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    """A file's rows, at most `PART_ROWS` at a time; a table without rows where it has none: its columns are sought anyway."""
    parquet = isinstance(opened, pq.ParquetFile)
    names = (opened.schema_arrow if parquet else opened.schema).names
    wanted = names if columns is None else [name for name in columns if name in names]
    try:
        yield from _parquet_parts(opened, wanted) if parquet else _arrow_parts(opened, wanted)
    except (pa.ArrowInvalid, OSError) as e:
        raise unreadable(at, e) from e


def _parquet_parts(parquet: pq.ParquetFile, wanted: list[str]) -> Iterator[pa.Table]:
    """A row group decoded at once would take ten times its embeddings' bytes."""
    if not parquet.metadata.num_rows:
        yield parquet.read(wanted)
    # Asked for all groups, it would keep what it has read of a store to the end.
    for group in range(parquet.num_row_groups):
        for batch in parquet.iter_batches(PART_ROWS, [group], wanted, use_threads=False):
            yield pa.Table.from_batches([batch])


def _arrow_parts(stream: pa.RecordBatchReader, wanted: list[str]) -> Iterator[pa.Table]:
    """As many batches as fit: each has the rows of one of the chunks that were merged. A longer one is cut."""
    have: list[pa.RecordBatch] = []
    for batch in stream:
        for part in (batch.slice(first, PART_ROWS) for first in range(0, len(batch), PART_ROWS)):
            if have and sum(map(len, have)) + len(part) > PART_ROWS:
                yield pa.Table.from_batches(have, stream.schema).select(wanted)
                have = []
            have.append(part)
    yield pa.Table.from_batches(have, stream.schema).select(wanted)
