"""Tar shards in the WebDataset form: members that share a key are one row. Local, s3://, gs://, hf://, http(s)://.

Columns: `image` (any image member), `__key__`, and every companion under its ending: `cls` (a number), `txt` (text), `json`
(its values under `json.NAME`), anything else as bytes.
"""

import io
import json
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from typing import Any

import pyarrow as pa

from levit_batch.errors import SourceError
from levit_batch.job.chunks import Chunk, Shard
from levit_batch.job.config import SourceConfig
from levit_batch.sources.columns.before import as_before, differs
from levit_batch.sources.columns.lookup import Found
from levit_batch.sources.columns.standard import check_columns, column_of, find_type, standard_table
from levit_batch.sources.columns.types import is_text
from levit_batch.sources.footers import Footer
from levit_batch.sources.imagefolder import IMAGE, IMAGE_ENDINGS
from levit_batch.sources.source import Source
from levit_batch.sources.tables import found_arrays, tables
from levit_batch.sources.webdataset_tar import Sample, samples
from levit_batch.storage.find import find_files
from levit_batch.storage.identity import File, identified, open_file
from levit_batch.storage.url import scheme, shown

ENDINGS = (".tar", ".tar.gz", ".tgz")
KEY = "__key__"
LOOK_AT = 16  # samples of the first shard that tell the columns
NUMBERS = ("cls", "cls2", "class", "count", "index", "inx", "id")
TEXTS = ("txt", "text", "caption", "transcript")
REMOTE_PIECE = 8 << 20


def open_source(config: SourceConfig) -> "WebDataset":
    return WebDataset(config)


class WebDataset(Source):
    """Shards are tars. How many rows one has is known when it has been read, so a shard is one chunk."""

    driver_only = ("files",)
    finds_images = True

    @cached_property
    def files(self) -> list[File]:
        paths = [self.config.path] if isinstance(self.config.path, str) else self.config.path
        return find_files([part for path in paths for part in path.split("::")], ENDINGS, self.leave_out)

    @cached_property
    def _schema(self) -> pa.Schema:
        try:
            first = list(islice(self._samples(self.files[0].url, None, _tells_type), LOOK_AT))
        except OSError as e:  # it may have gone since it was listed
            raise SourceError(f"source.path: {self.files[0].name} cannot be read: {e}") from None
        if not first or first[0].error:
            reason = first[0].error if first else "it holds no samples"
            raise SourceError(f"{shown(self.files[0].url)}: not a WebDataset tar: {reason}")
        names = list(dict.fromkeys(name for sample in first for name in sample.fields))
        fields = [pa.field(name, _type(name, [s.fields[name] for s in first if s.fields.get(name)])) for name in names]
        own = [pa.field(self.config.image_column, IMAGE)] if self.config.image_column not in names else []
        if own and self.config.image_column != "image" and ";" not in self.config.image_column:
            own = []  # a member that is not there: `check_columns` says so, with what there is
        schema = pa.schema([*own, pa.field(KEY, pa.string()), *fields])
        self._check_before(schema, first)
        return schema

    def _check_before(self, schema: pa.Schema, first: list[Sample]) -> None:
        """Refuse a first shard whose values would be others in the types of the table that is there. Raises SourceError.

        Types that are guessed from values are held against each other by them: 3 may stand where 3.5 stood.
        """
        like = schema if self.before is None else as_before(schema, self.before)
        for column in self.before or ():
            name = column.name if column.name in schema.names else column.name.split(".")[0]
            if name not in schema.names or schema.field(name) == like.field(name) or is_text(like.field(name).type):
                continue
            contents = [sample.fields.get(name) for sample in first]
            here, there = (pa.table({name: _values(contents, one.field(name))}) for one in (schema, like))
            if column_of(here, column.name).to_pylist() != column_of(there, column.name).to_pylist():
                what = differs(column.name, find_type(schema, column.name, ""), column.type, self.before)
                raise SourceError(f"{shown(self.files[0].url)}: {what}")

    def schema(self) -> pa.Schema:
        return self._schema

    def shards(self) -> Iterator[Shard]:
        for file in self.files:
            if not file.size:
                raise SourceError(f"{shown(file.url)}: an empty file, not a tar; leave it out of source.path")
        check_columns(self.schema(), self.config)
        yield from self.footers.shards(self.files, lambda file: Footer(identified(file).version, None))

    def count(self, shard: Shard, most: int) -> int:
        """Headers are walked, contents are not read."""
        return sum(1 for _ in islice(self._samples(shard.url, shard.version, lambda name: False), most))

    def rows_from(self, chunk: Chunk, first: int) -> Iterator[pa.Table]:
        rows = islice(self._samples(chunk.url, chunk.version, self._wanted), first, None)
        yield from tables(rows, Sample.size, self._table)

    def _samples(self, url: str, version: str | None, wanted) -> Iterator[Sample]:
        stream, _ = open_file(url, version)
        piece = REMOTE_PIECE if scheme(url) not in ("", "file") else io.DEFAULT_BUFFER_SIZE
        with stream, io.BufferedReader(stream, piece) as buffered:
            yield from samples(buffered, wanted, self.config.max_image_bytes)

    def _wanted(self, name: str) -> bool:
        return name in self._needed or self._is_image(name)

    @cached_property
    def _needed(self) -> set[str]:
        columns = [*self.config.keep_columns, self.config.target_column or ""]
        return {field for column in columns for field in (column, column.split(".")[0])}

    def _is_image(self, name: str) -> bool:
        column = self.config.image_column
        if column == "image":
            return f".{name}" in IMAGE_ENDINGS or name == column
        return name in column.lower().split(";")

    def _table(self, part: list[Sample]) -> pa.Table:
        """The samples as one table; a field that a sample does not have is null."""
        images, paths = zip(*(self._image(sample) for sample in part), strict=True)
        columns: dict[str, pa.Array] = {}
        for field in self.like:
            if field.name == KEY:
                columns[KEY] = pa.array([sample.key or None for sample in part], pa.string())
            elif field.name in self._needed and field.type != IMAGE:
                columns[field.name] = _values([s.fields.get(field.name) for s in part], field)
        image = [{"bytes": None, "path": path} for path in paths]
        columns.setdefault(self.config.image_column, pa.array(image, IMAGE))
        return standard_table(pa.table(columns), self.config, self.like, found_arrays(images))

    def _image(self, sample: Sample) -> tuple[Found, str]:
        """The image, and its member's name."""
        name = next((name for name in sample.fields if self._is_image(name)), None)
        if sample.error or name is None:
            return (None, sample.error or f"missing: sample {sample.key} has no image member"), sample.key
        data, path = sample.fields[name], sample.names[name]
        error = f"unreadable: {path}: its sample is larger than source.max_image_bytes ({self.config.max_image_bytes})"
        return (data, None if data is not None else error), path


def _tells_type(name: str) -> bool:
    """Whether a field's content says more of its type than its name does."""
    return name.rsplit(".", 1)[-1] == "json"


def _type(name: str, contents: list[bytes]) -> pa.DataType:
    ending = name.rsplit(".", 1)[-1]
    if f".{ending}" in IMAGE_ENDINGS:
        return IMAGE
    if ending in NUMBERS:
        return pa.int64()
    if ending in TEXTS:
        return pa.string()
    if ending != "json":
        return pa.large_binary()
    values = [value for value in map(_json, contents) if value is not None]
    try:
        kind = pa.infer_type(values)
    except pa.ArrowException:
        return pa.string()  # values of several types under one name: kept as text
    return kind if pa.types.is_struct(kind) and kind.num_fields else pa.string()


def _values(contents: list[bytes | None], field: pa.Field) -> pa.Array:
    """Contents of one field in a column; what cannot be read as the column's type is null."""
    if pa.types.is_large_binary(field.type):
        return pa.array(contents, field.type)
    texts = [None if data is None else data.decode("utf-8", "replace") for data in contents]
    if pa.types.is_string(field.type):
        return pa.array(texts, field.type)
    if pa.types.is_integer(field.type):
        return pa.array([_whole(text) for text in texts], field.type)
    values = [None if data is None else _uncut(_json(data), field.type) for data in contents]
    try:
        return pa.array(values, field.type)
    except (pa.ArrowException, TypeError):
        return pa.concat_arrays([_one(value, field.type) for value in values])


def _uncut(value: Any, kind: pa.DataType) -> Any:
    """`value` with whole numbers where `kind` has them: null for one whose fraction Arrow would cut off."""
    if pa.types.is_struct(kind) and isinstance(value, dict):
        return {field.name: _uncut(value.get(field.name), field.type) for field in kind}
    if pa.types.is_list(kind) and isinstance(value, list):
        return [_uncut(one, kind.value_type) for one in value]
    if pa.types.is_integer(kind) and isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value


def _one(value: Any, kind: pa.DataType) -> pa.Array:
    try:
        return pa.array([value], kind)
    except (pa.ArrowException, TypeError):
        return pa.nulls(1, kind)


def _whole(text: str | None) -> int | None:
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None
