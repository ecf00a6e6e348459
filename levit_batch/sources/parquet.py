"""Parquet files: local, s3://, gs://, hf://, http(s)://. Planned from footers, read by row groups."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from levit_batch.config import SourceConfig
from levit_batch.errors import SourceError
from levit_batch.plan import Chunk, Shard, version_of
from levit_batch.sources import READ_ROWS, Source
from levit_batch.sources.columns import check_columns, needed_columns, standard_table
from levit_batch.sources.files import File, find_files
from levit_batch.storage import place

FOOTER_THREADS = 16


def open_source(config: SourceConfig) -> "ParquetSource":
    return ParquetSource(config)


class ParquetSource(Source):
    """Shards are Parquet files; a chunk is cut at row groups."""

    @cached_property
    def files(self) -> list[File]:
        return find_files(self.config.path, (".parquet", ".parq", ".pq"))

    def schema(self) -> pa.Schema:
        return self._footer(self.files[0]).schema.to_arrow_schema()

    def shards(self) -> Iterator[Shard]:
        with ThreadPoolExecutor(FOOTER_THREADS) as pool:
            yield from pool.map(self._shard, self.files)

    def _shard(self, file: File) -> Shard:
        footer = self._footer(file)
        schema = footer.schema.to_arrow_schema()
        try:
            check_columns(schema, self.config)
        except SourceError as e:
            raise SourceError(f"{file.url}: {e}") from None
        groups = tuple(footer.row_group(i).num_rows for i in range(footer.num_row_groups))
        return Shard(file.name, file.url, version_of(file.size, file.stamp), footer.num_rows, groups)

    def _footer(self, file: File) -> pq.FileMetaData:
        at = place(file.url)
        try:
            return pq.read_metadata(at.path, filesystem=at.filesystem)
        except (pa.ArrowInvalid, OSError) as e:
            raise SourceError(f"{file.url}: not a readable Parquet file: {e}") from None

    def read(self, chunk: Chunk) -> Iterator[pa.Table]:
        at = place(chunk.url)
        with at.filesystem.open_input_file(at.path) as stream, pq.ParquetFile(stream) as file:
            groups, skip = _groups(file.metadata, chunk.first, chunk.stop)
            columns = needed_columns(file.schema_arrow, self.config)
            left = chunk.rows
            for batch in file.iter_batches(READ_ROWS, row_groups=groups, columns=columns, use_threads=False):
                start = min(skip, batch.num_rows)
                skip -= start
                batch = batch.slice(start, left)
                left -= batch.num_rows
                if batch.num_rows:
                    yield standard_table(batch, self.config)
                if not left:
                    return


def _groups(footer: pq.FileMetaData, first: int, stop: int) -> tuple[list[int], int]:
    """The row groups that hold rows `first` to `stop`, and how many rows to skip in the first of them."""
    groups, skip, start = [], 0, 0
    for i in range(footer.num_row_groups):
        end = start + footer.row_group(i).num_rows
        if start < stop and end > first:
            if not groups:
                skip = first - start
            groups.append(i)
        start = end
    return groups, skip
