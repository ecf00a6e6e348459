"""Predictions beside the columns of their source, as one Parquet file: matched by shard and row, streamed."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain, groupby
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from levit_batch.errors import ConfigError, OutputError, SourceError, brief
from levit_batch.job.chunks import Shard
from levit_batch.job.row import feature_of, features_of, kept_name, with_features
from levit_batch.sources.source import Source
from levit_batch.storage.identity import open_file
from levit_batch.storage.place import place
from levit_batch.table.output import Output, folder_of
from levit_batch.table.read import ChunkFile, job_of, require_files, schema_of
from levit_batch.table.scan import scan_files

BATCH_ROWS = 256
FEATURES = b"huggingface"


def join(output: Output, source: Source, out: str, columns: Sequence[str] | None = None) -> tuple[int, int]:
    """Write the rows of `output` to the file `out`, each after the columns of its source; returns the rows written and
    the rows left out because their shard has changed or is gone.

    columns: of the source; None: all. A prediction column that the source has too, in whatever case, is called
    `levit_<name>`. The class names of both sides stay. Raises ConfigError when the source is not Parquet.
    """
    job = job_of(output)
    if job["config"]["source"]["type"] not in ("parquet", "huggingface"):
        raise ConfigError(
            "join: the source is not Parquet; `levit-batch export --to jsonl` gives the rows to join elsewhere"
        )
    files, shards = require_files(output), {folder_of(shard.name): shard for shard in source.shards()}
    original = source.schema()
    names = _known(columns, original)
    schema = schema_of(files[0])
    ours, mine = _our_columns(schema, job), features_of(schema, job)
    left_out: list[int] = []

    def tables() -> Iterator[pa.Table]:
        for folder, group in groupby(files, key=lambda file: file.folder):
            for table in _joined(shards.get(folder), list(group), names, ours):
                if isinstance(table, int):
                    left_out.append(table)
                else:
                    yield _renamed(table, len(names), mine, original)

    rows: list[int] = []
    try:
        place(out).write_with(lambda sink: rows.append(_write(sink, tables())))
    except OSError as e:
        raise OutputError(f"--out {out}: cannot be written, or the source not read: {brief(e)}") from None
    return sum(rows), sum(left_out)


def _write(sink: BinaryIO, tables: Iterator[pa.Table]) -> int:
    """Write `tables` as one Parquet file; returns the rows. Raises SourceError when there is none."""
    first = next(tables, None)
    if first is None:
        raise SourceError("join: no shard of the output is in the source as it was labelled")
    rows = 0
    with pq.ParquetWriter(sink, first.schema, compression="zstd") as writer:
        for table in chain([first], tables):
            writer.write_table(table.cast(writer.schema))
            rows += table.num_rows
    return rows


def _known(columns: Sequence[str] | None, schema: pa.Schema) -> list[str]:
    missing = [name for name in columns or () if name not in schema.names]
    if missing:
        raise ConfigError(f"--columns: the source has no column {', '.join(missing)}; it has {', '.join(schema.names)}")
    names = list(dict.fromkeys(columns or schema.names))
    twice = [name for name in names if schema.names.count(name) > 1]
    if twice:
        raise ConfigError(f"--columns: the source has several columns called {', '.join(twice)}; name others")
    return names


def _our_columns(schema: pa.Schema, job: dict[str, Any]) -> list[str]:
    """The output's columns without those that it kept from the source."""
    kept = {kept_name(name) for name in job["config"]["source"].get("keep_columns", ())}
    return [name for name in schema.names if name not in kept]


def _joined(shard: Shard | None, files: list[ChunkFile], names: list[str], ours: list[str]) -> Iterator[pa.Table | int]:
    """Tables of one shard's rows, source columns first; or how many rows are left out."""
    if shard is None or shard.version != files[0].written.version:
        yield from (table.num_rows for _, table in scan_files(files, ["row"]))
        return
    stream, _ = open_file(shard.url, shard.version)
    with stream, pq.ParquetFile(stream) as file:
        cursor = _Cursor(file.iter_batches(BATCH_ROWS, columns=names, use_threads=False))
        for _, table in scan_files(files, ours):
            first = table["row"][0].as_py()
            source = cursor.take(first, table.num_rows).select(names)
            for name in ours:
                source = source.append_column(pa.field(name, table.schema.field(name).type), table[name])
            yield source


class _Cursor:
    """Goes forward through record batches."""

    def __init__(self, batches: Iterator[pa.RecordBatch]):
        self.batches, self.place, self.rest = batches, 0, None

    def take(self, first: int, rows: int) -> pa.Table:
        """Rows `first` to `first + rows`; `first` is never before the end of what was taken."""
        parts = []
        while rows:
            batch = self.rest if self.rest is not None and self.rest.num_rows else next(self.batches)
            skip = min(first - self.place, batch.num_rows)
            part = batch.slice(skip, rows)
            self.rest = batch.slice(skip + part.num_rows)
            self.place += skip + part.num_rows
            first, rows = max(first, self.place), rows - part.num_rows
            if part.num_rows:
                parts.append(part)
        return pa.Table.from_batches(parts)


def _renamed(table: pa.Table, sources: int, mine: dict[str, Any], original: pa.Schema) -> pa.Table:
    """Prediction columns that have a source column's name get another; the features of both sides are kept.

    mine: the features of the prediction columns.
    """
    theirs = _features(original.metadata)
    names, features = [], {}
    for i, field in enumerate(table.schema):
        known = theirs if i < sources else mine
        names.append(field.name if i < sources else _apart(field.name, names))
        features[names[-1]] = known[field.name] if field.name in known else feature_of(field.type)
    table = table.rename_columns(names)
    return table.replace_schema_metadata(with_features(table.schema.remove_metadata(), features).metadata)


def _apart(name: str, taken: list[str]) -> str:
    """`name`, or with `levit_` before it what none of `taken` is called. Case does not count, as in DuckDB."""
    lower = {one.lower() for one in taken}
    while name.lower() in lower:
        name = f"levit_{name}"
    return name


def _features(metadata: dict[bytes, bytes] | None) -> dict[str, Any]:
    try:
        return json.loads((metadata or {}).get(FEATURES, b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
