"""Arrow IPC files (file and stream form) and folders of `Dataset.save_to_disk`; memory-mapped where they are local."""

import json
from collections.abc import Iterator
from functools import cached_property

import pyarrow as pa

from levit_batch.errors import SourceError, brief
from levit_batch.job.chunks import Chunk, Shard
from levit_batch.job.config import SourceConfig
from levit_batch.sources.arrow_file import ArrowFile
from levit_batch.sources.columns.standard import check_columns, check_same, error_table, needed_columns
from levit_batch.sources.damage import damage
from levit_batch.sources.footers import Footer, columns_of
from levit_batch.sources.shard_files import shard_files
from levit_batch.sources.source import Source
from levit_batch.sources.tables import READ_ROWS, standard_tables
from levit_batch.storage.find import GLOB, find_files
from levit_batch.storage.identity import File
from levit_batch.storage.place import Place, place
from levit_batch.storage.retry import retry
from levit_batch.storage.url import scheme, shown

ENDINGS = (".arrow", ".ipc", ".feather", ".arrows")


def open_source(config: SourceConfig) -> "ArrowSource":
    return ArrowSource(config)


class ArrowSource(Source):
    """Shards are files; record batches are the groups that chunks are cut at."""

    driver_only = ("files",)

    @cached_property
    def files(self) -> list[File]:
        if isinstance(self.config.path, str) and (saved := saved_dataset(self.config)):
            return saved
        if self.config.split:
            raise SourceError(
                f"source.split: {self.config.path} is no folder of DatasetDict.save_to_disk; leave it out"
            )
        return shard_files(self.config, ENDINGS, self.leave_out)

    @cached_property
    def _schema(self) -> pa.Schema:
        return self._opened(self.files[0]).schema

    def schema(self) -> pa.Schema:
        return self._schema

    def shards(self) -> Iterator[Shard]:
        check_columns(self.schema(), self.config)
        yield from self.footers.shards(self.files, self._read, self._check)

    def _read(self, listed: File) -> Footer:
        file = self._opened(listed)
        try:
            groups = file.batch_sizes()
        except (pa.ArrowException, OSError) as e:
            raise SourceError(_unreadable(listed, e)) from None
        rows = None if groups is None else sum(groups)
        return Footer(file.version, rows, tuple(groups or ()), columns_of(file.schema))

    def _check(self, file: File, schema: pa.Schema) -> None:
        try:
            check_same(schema, self.like, self.config, self.before)
        except SourceError as e:
            raise SourceError(f"{shown(file.url)}: {e}") from None

    def _opened(self, listed: File) -> ArrowFile:
        try:
            return ArrowFile(listed.url)
        except (pa.ArrowException, OSError) as e:
            raise SourceError(_unreadable(listed, e)) from None

    def rows_from(self, chunk: Chunk, first: int) -> Iterator[pa.Table]:
        file = ArrowFile(chunk.url, chunk.version)
        names = needed_columns(file.schema, self.config)
        columns = list(dict.fromkeys(name if name in file.schema.names else name.split(".")[0] for name in names))
        row = 0
        for rows, batch in file.batches(columns):
            for start in range(max(0, first - row), rows, READ_ROWS):
                yield from self._piece(batch, start, min(READ_ROWS, rows - start))
            row += rows

    def _piece(self, batch: pa.RecordBatch | str, start: int, rows: int) -> Iterator[pa.Table]:
        """Some rows of a batch; error rows where the batch is damaged."""
        if isinstance(batch, str):
            yield error_table(rows, batch, self.config, self.like)
            return
        piece = batch.slice(start, rows)
        try:
            piece.validate(full=True)  # offsets out of range would end the process
        except pa.ArrowInvalid as e:
            if rows == 1:
                yield error_table(1, f"unreadable: record batch is damaged: {damage(e)}", self.config, self.like)
            for row in range(rows if rows > 1 else 0):  # which of them it is
                yield from self._piece(batch, start + row, 1)
            return
        yield from standard_tables(piece, self.config, self.like)


def saved_dataset(config: SourceConfig) -> list[File] | None:
    """The data files of a `save_to_disk` folder (for a DatasetDict: of `source.split`), or None for any other folder."""
    path = str(config.path)
    if path.lower().endswith(ENDINGS) or GLOB.search(path) or scheme(path) in ("http", "https"):
        return None
    folder = place(path)
    splits = _json(folder.join("dataset_dict.json"))
    if splits is not None:
        names = splits.get("splits", [])
        split = config.split or (names[0] if len(names) == 1 else None)
        if split not in names:
            raise SourceError(f"source.split: {config.path} is a DatasetDict; choose of: {', '.join(names)}")
        folder = folder.join(split)
    state = _json(folder.join("state.json"))
    if state is None:
        return None
    if state.get("_indices_data_files") or state.get("_indices_files"):
        raise SourceError(f"source.path: {config.path} has a table of indices; save it anew after `flatten_indices()`")
    return [_data_file(folder, entry["filename"]) for entry in state["_data_files"]]


def _data_file(folder: Place, name: str) -> File:
    at = folder.join(name)
    try:
        return find_files(at.url, ENDINGS)[0]
    except SourceError:
        raise SourceError(
            f"{shown(at.url)}: state.json names this file, but it is not there; copy the whole folder"
        ) from None


def _json(at: Place) -> dict | None:
    try:
        return json.loads(retry(at.read_bytes))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise SourceError(f"{shown(at.url)}: cannot be read: {e}") from None


def _unreadable(file: File, error: Exception) -> str:
    reason = brief(error) if file.size else "it is empty"
    return f"{shown(file.url)}: not a readable Arrow file: {reason}; repair it, or leave it out of source.path"
