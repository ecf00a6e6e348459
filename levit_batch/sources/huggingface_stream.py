"""Hub datasets of every other form (JSON, CSV, Arrow, zipped images, ...), streamed by `datasets`, a chunk a shard."""

import os
import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from levit_batch.errors import SourceError
from levit_batch.job.chunks import Chunk, Shard
from levit_batch.job.config import SourceConfig
from levit_batch.sources.columns.lookup import Found, read_path, read_whole, too_large
from levit_batch.sources.columns.standard import check_columns, check_same
from levit_batch.sources.source import Source
from levit_batch.sources.tables import standard_tables
from levit_batch.storage.hub import explain, patient_hub
from levit_batch.storage.identity import stamp_of, version_of
from levit_batch.storage.place import place
from levit_batch.storage.retry import retry
from levit_batch.storage.url import scheme, shown

if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset

MOST_SHARDS = (
    1000  # of a dataset of single files (an image folder) each is a shard to `datasets`; they are put together
)
SPLIT_JOINT = ":"
STREAM_ROWS = 8  # at a time: how large they are is known when `datasets` has made Python objects of them


class HubStream(Source):
    """Shards are what `datasets` calls shards: data files, or runs of files where each holds one row.

    How many rows a shard has is known when it has been read, so a shard is one chunk.
    """

    finds_images = True

    def __init__(self, config: SourceConfig, builder: "DatasetBuilder", splits: list[str]):
        super().__init__(config)
        self.streams = {split: self._stream(builder, split) for split in splits}
        self.files = {split: [str(url) for url in (builder.config.data_files or {}).get(split, [])] for split in splits}
        commit = re.match(r"hf://datasets/[^@]+@([^/]+)", builder.base_path or "")
        self.revision = commit[1] if commit else None
        base = builder.base_path or ""
        self.base = base if scheme(base) else os.path.abspath(base)
        self.hash = builder.hash or ""

    def _stream(self, builder: "DatasetBuilder", split: str) -> "IterableDataset":
        try:
            stream = builder.as_streaming_dataset(split)
            stream = stream if stream.features else stream._resolve_features()
            return stream.decode(False) if stream.features else stream
        except Exception as e:
            raise explain(e, self.config.path, self.config.revision) from None

    @cached_property
    def _schema(self) -> pa.Schema:
        features = next(iter(self.streams.values())).features
        if not features:
            raise SourceError(f"source.path: {self.config.path} has no rows")
        return features.arrow_schema

    def schema(self) -> pa.Schema:
        return self._schema

    def shards(self) -> Iterator[Shard]:
        check_columns(self.schema(), self.config)
        if self.before is not None:
            self._check_before()
        for split, stream in self.streams.items():
            count = min(stream.num_shards, MOST_SHARDS)
            alone, names = self._alone(split), [self._name(url) for url in self.files[split]]
            stamps = [_stamp(url) for url in self.files[split]]
            for i in range(count):
                # Where a file is a shard it has that file's name and version; else all share one version, and are cut
                # anew together: which file went where is not known.
                name = names[i] if alone else f"part-{i:05d}"
                version = version_of(name, stamps[i]) if alone else version_of(names, stamps, "" if names else self.hash)
                yield Shard(f"{split}/{name}", f"{split}{SPLIT_JOINT}{i}/{count}", version, None)

    def _check_before(self) -> None:
        """All shards have the types that `datasets` gives the whole dataset: these may be others than when the table began."""
        try:
            check_same(self.schema(), self.like, self.config, self.before)
        except SourceError as e:
            raise SourceError(f"{self.config.path}: {e}") from None

    @cached_property
    def cuts_shards(self) -> bool:
        return not all(self._alone(split) for split in self.streams)

    def _alone(self, split: str) -> bool:
        """Whether each data file is a shard of its own."""
        return len(self.files[split]) == self.streams[split].num_shards <= MOST_SHARDS

    def _name(self, url: str) -> str:
        """A data file's path in the repository."""
        root = self.base.rstrip("/") + "/"
        return shown(url).removeprefix(shown(root))

    def rows_from(self, chunk: Chunk, first: int) -> Iterator[pa.Table]:
        split, _, place_of = chunk.url.rpartition(SPLIT_JOINT)
        index, count = place_of.split("/")
        row = 0
        for batch in self._batches(split, int(index), int(count)):
            row += len(batch)
            if row > first:
                batch = batch.slice(max(0, len(batch) - (row - first)))
                yield from standard_tables(batch, self.config, self.like, self._look_up)

    def _batches(self, split: str, index: int, count: int) -> Iterator[pa.Table]:
        patient_hub()
        stream = self.streams[split].shard(count, index, contiguous=True)
        kinds = self._schema
        for examples in stream.iter(STREAM_ROWS):
            yield pa.table({field.name: pa.array(examples[field.name], field.type) for field in kinds}, schema=kinds)

    def _look_up(self, path: str | None, config: SourceConfig) -> Found:
        """The image that `datasets` only names: a file of this repository, at this commit, or one inside an archive there."""
        inside = (path or "").rpartition("::")[2]
        root = self.base.rstrip("/") + "/"
        if not path or not inside.startswith(root) or ".." in inside[len(root) :].split("/"):
            return read_path(path, config)
        named = inside[len(root) :]
        try:
            if "::" in path:
                return retry(lambda: _unpacked(path, named, config))
            return read_whole(place(inside), named, config)
        except FileNotFoundError:
            return read_path(path, config)


def _unpacked(path: str, named: str, config: SourceConfig) -> Found:
    from datasets.utils.file_utils import xopen

    with xopen(path, "rb") as file:
        data = file.read(config.max_image_bytes + 1)
    too_many = len(data) > config.max_image_bytes
    return (None, too_large(named, len(data), config)) if too_many else (data, None)


def _stamp(url: str) -> str:
    at = place(url)
    return f"{at.info().size} {stamp_of(at)}"
