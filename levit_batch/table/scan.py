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

PART_ROWS = 8192  # of a large file, at once
AHEAD = 4  # files read ahead of the one in use: hides an object store's latency, holds a few narrow tables


def scan(output: Output, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Tables of the output's rows in order, see `scan_files`, holding those of `columns` that the output has."""
    for _, table in scan_files(require_files(output), columns):
        yield table


def scan_files(
    files: Sequence[ChunkFile], columns: Sequence[str] | None = None
) -> Iterator[tuple[ChunkFile, pa.Table]]:
    """Each of `files` with its table, in order, a few read ahead; a large one again and again, each time with its next rows.

    Memory does not grow with the number of files' rows.
    """
    with ThreadPoolExecutor(AHEAD) as pool:
        for large, some in groupby(files, is_large):
            if large:
                yield from ((file, table) for file in some for table in _parts(file.place, columns))
            else:
                yield from ahead(pool, lambda file: read_file(file, columns), some, AHEAD)


def is_large(file: ChunkFile) -> bool:
    """Whether it may have more than one row group."""
    rows = ROW_GROUP_ROWS + 1 if file.written.stop is None else file.written.stop - file.written.first
    return rows > ROW_GROUP_ROWS and file.place.path.endswith(".parquet")


def _parts(at: Place, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    """A Parquet file's rows, `PART_ROWS` at a time: a row group decoded at once takes ten times its embeddings' bytes."""
    try:
        # A disk gives what is asked for when it is; a store would be asked again for each column.
        with at.filesystem.open_input_file(at.path) as stream, pq.ParquetFile(stream, pre_buffer=not at.local) as parquet:
            names = parquet.schema_arrow.names
            wanted = None if columns is None else [name for name in columns if name in names]
            if not parquet.metadata.num_rows:  # its columns are asked for all the same
                yield parquet.read(wanted)
            for batch in parquet.iter_batches(PART_ROWS, columns=wanted, use_threads=False):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowInvalid, OSError) as e:
        raise unreadable(at, e) from e
