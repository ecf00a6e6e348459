"""Hub datasets of every other form (JSON, CSV, Arrow, zipped images, ...), streamed by `datasets`, a chunk a shard."""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.config import SourceConfig
from levit_batch.errors import SourceError
from levit_batch.hub import patient_hub
from levit_batch.plan import Chunk, Shard, version_of
from levit_batch.retry import retry
from levit_batch.sources import READ_ROWS, Source
from levit_batch.sources.columns import check_columns, column_of, find_type, standard_table
from levit_batch.sources.hub_errors import explain
from levit_batch.sources.identity import stamp_of
from levit_batch.storage import place, shown

if TYPE_CHECKING:
    from datasets import DatasetBuilder, IterableDataset

MOST_SHARDS = (
    1000  # of a dataset of single files (an image folder) each is a shard to `datasets`; they are put together
)
SPLIT_JOINT = ":"


class HubStream(Source):
    """Shards are what `datasets` calls shards: data files, or runs of files where each holds one row.

    How many rows a shard has is known when it has been read, so a shard is one chunk.
    """

    def __init__(self, config: SourceConfig, builder: "DatasetBuilder", splits: list[str]):
        super().__init__(config)
        self.streams = {split: self._stream(builder, split) for split in splits}
        self.files = {split: [str(url) for url in (builder.config.data_files or {}).get(split, [])] for split in splits}
        commit = re.match(r"hf://datasets/[^@]+@([^/]+)", builder.base_path or "")
        self.revision = commit[1] if commit else None
        self.base = builder.base_path or ""
        self.hash = builder.hash or ""

    def _stream(self, builder: "DatasetBuilder", split: str) -> "IterableDataset":
        try:
            stream = builder.as_streaming_dataset(split)
            stream = stream if stream.features else stream._resolve_features()
            return stream.decode(False) if stream.features else stream
        except Exception as e:
            raise explain(e, self.config) from None

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
                yield standard_table(self._with_bytes(batch), self.config, self._schema)

    def _batches(self, split: str, index: int, count: int) -> Iterator[pa.Table]:
        patient_hub()
        stream = self.streams[split].shard(count, index, contiguous=True)
        kinds = self._schema
        for examples in stream.iter(READ_ROWS):
            yield pa.table({field.name: pa.array(examples[field.name], field.type) for field in kinds}, schema=kinds)

    def _with_bytes(self, batch: pa.Table) -> pa.Table:
        """The batch with the images that `datasets` only names: files of this repository, at this commit."""
        name = self.config.image_column
        kind = find_type(batch.schema, name, "source.image_column")
        if not pa.types.is_struct(kind) or name not in batch.schema.names:
            return batch
        column = column_of(batch, name).combine_chunks()
        data, paths = pc.struct_field(column, "bytes").to_pylist(), pc.struct_field(column, "path").to_pylist()
        filled = [
            self._open(path) if image is None and path else image for image, path in zip(data, paths, strict=True)
        ]
        values = [pa.array(filled, kind.field("bytes").type), pa.array(paths, kind.field("path").type)]
        mask = column.is_null()
        image = pa.StructArray.from_arrays(values, names=["bytes", "path"], mask=mask)
        return batch.set_column(batch.schema.get_field_index(name), name, image)

    def _open(self, path: str) -> bytes | None:
        """The bytes of a file inside the repository (or inside an archive there); None for any other path."""
        inside = path.rpartition("::")[2]
        root = self.base.rstrip("/") + "/"
        if not inside.startswith(root) or ".." in inside[len(root) :].split("/"):
            return None
        if "::" not in path:
            return _or_none(lambda: place(inside).read_bytes())
        from datasets.utils.file_utils import xopen

        def read() -> bytes:
            with xopen(path, "rb") as file:
                return file.read()

        return _or_none(read)


def _or_none(read: Any) -> bytes | None:
    try:
        return retry(read)
    except FileNotFoundError:
        return None


def _stamp(url: str) -> str:
    at = place(url)
    return f"{at.info().size} {stamp_of(at)}"
