"""Parquet files: local, s3://, gs://, hf://, http(s)://. Planned from footers, read by row groups."""

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from levit_batch.errors import SourceError
from levit_batch.job.chunks import Chunk, Shard
from levit_batch.job.config import SourceConfig
from levit_batch.job.row import FINGERPRINT, features_of, with_features
from levit_batch.sources.columns.standard import check_columns, check_same, error_table, needed_columns
from levit_batch.sources.damage import damage, not_parquet
from levit_batch.sources.footers import Footer, columns_of
from levit_batch.sources.shard_files import shard_files
from levit_batch.sources.source import Source
from levit_batch.sources.tables import READ_ROWS, TABLE_BYTES, standard_tables
from levit_batch.storage.identity import File, open_file, open_listed
from levit_batch.storage.place import place
from levit_batch.storage.retry import retry
from levit_batch.storage.url import scheme, shown

# A column chunk is read in pieces of this size, so that memory does not grow with the row group.
LOCAL_PIECE, REMOTE_PIECE = 1 << 20, 8 << 20


def open_source(config: SourceConfig) -> "ParquetSource":
    return ParquetSource(config)


class ParquetSource(Source):
    """Shards are Parquet files; a chunk is cut at row groups."""

    driver_only = ("files",)

    @cached_property
    def files(self) -> list[File]:
        return shard_files(self.config, (".parquet", ".parq", ".pq"), self.leave_out)

    @cached_property
    def _schema(self) -> pa.Schema:
        footer = _footer(self.files[0])[1]
        schema = footer.schema.to_arrow_schema()
        job = _job_of(self.files[0]) if FINGERPRINT in (footer.metadata or {}) else None
        return with_features(schema, features_of(schema, job)) if job else schema

    def schema(self) -> pa.Schema:
        return self._schema

    def shards(self) -> Iterator[Shard]:
        schema = self.schema()
        self._named(self.files[0], lambda: check_columns(schema, self.config))
        yield from self.footers.shards(self.files, _read, self._check)

    def _check(self, file: File, schema: pa.Schema) -> None:
        if not schema.equals(self.like):
            self._named(file, lambda: check_same(schema, self.like, self.config, self.before))

    def _named(self, file: File, check) -> None:
        try:
            check()
        except SourceError as e:
            raise SourceError(f"{shown(file.url)}: {e}") from None

    def rows_from(self, chunk: Chunk, first: int) -> Iterator[pa.Table]:
        stream, _ = open_file(chunk.url, chunk.version)
        with stream, pq.ParquetFile(stream, buffer_size=_piece(chunk.url), pre_buffer=False) as file:
            columns = needed_columns(file.schema_arrow, self.config)
            start = 0
            for group in range(file.metadata.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                if end > first:
                    yield from self._group(file, group, max(first - start, 0), end - start, columns)
                start = end

    def _group(self, file: pq.ParquetFile, group: int, skip: int, stop: int, columns: list[str]) -> Iterator[pa.Table]:
        """Rows `skip` to `stop` of one row group; from where its data is damaged on, error rows."""
        row = 0
        batches = file.iter_batches(
            _batch_rows(file.metadata.row_group(group)), row_groups=[group], columns=columns, use_threads=False
        )
        try:
            for batch in batches:
                row += batch.num_rows
                if row > skip:
                    rest = batch.slice(max(0, batch.num_rows - (row - skip)))
                    yield from standard_tables(rest, self.config, self.like)
        except (pa.ArrowException, OSError) as e:
            if not (reason := damage(e)):
                raise
            error = f"unreadable: row group {group} is damaged: {reason}"
            for start in range(max(row, skip), stop, READ_ROWS):
                yield error_table(min(READ_ROWS, stop - start), error, self.config, self.like)


def _job_of(file: File) -> dict[str, Any] | None:
    """The `job.json` of the output that a chunk file is part of (data/<shard's folder>/<file>), which has its class names."""
    at = place(file.url.rsplit("/", 3)[0]).join("job.json")
    try:
        job = json.loads(retry(at.read_bytes))
        return job if isinstance(job["class_names"], list) else None
    except (OSError, ValueError, KeyError, TypeError):  # the file lies elsewhere, without its output
        return None


def _piece(url: str) -> int:
    return REMOTE_PIECE if scheme(url) not in ("", "file") else LOCAL_PIECE


def _batch_rows(group: pq.RowGroupMetaData) -> int:
    return max(1, min(READ_ROWS, TABLE_BYTES * group.num_rows // max(1, group.total_byte_size)))


def _read(listed: File) -> Footer:
    file, footer = _footer(listed)
    groups = tuple(footer.row_group(i).num_rows for i in range(footer.num_row_groups))
    return Footer(file.version, footer.num_rows, groups, columns_of(footer.schema.to_arrow_schema()))


def _footer(listed: File) -> tuple[File, pq.FileMetaData]:
    """The footer of a file and which content of it that is. Raises SourceError when it is not a Parquet file."""
    try:
        stream, file = open_listed(listed)
        with stream:
            return file, pq.read_metadata(stream)
    except (pa.ArrowInvalid, OSError) as e:
        why = not_parquet(shown(listed.url), e) if listed.size else "not a readable Parquet file: it is empty"
        mend = "; repair it, or leave it out of source.path" if why.startswith("not a readable") else ""
        raise SourceError(f"{shown(listed.url)}: {why}{mend}") from None
