"""`source.type: output`: the embeddings of a finished table in place of images, and the truth beside them or in another table."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa

from levit_batch.errors import OutputError, SourceError
from levit_batch.job.chunks import Chunk, Shard
from levit_batch.job.row import IMAGE_BYTES, KEPT, READ_ERROR, TARGET, features_of, with_features
from levit_batch.results.truth import TruthTable, read_truth
from levit_batch.sources.columns.standard import find_type
from levit_batch.sources.columns.targets import holds_names
from levit_batch.sources.source import Source
from levit_batch.storage.place import place
from levit_batch.table.books import up_to_date
from levit_batch.table.pieces import Pieces
from levit_batch.table.read import first_file, job_of, open_output, schema_of


class StoredEmbeddings(Source):
    """A source whose `IMAGE_BYTES` are embeddings: fixed-size lists of floats. Raises OutputError where there are none.

    job: the table's job.json. truth: the targets by key, as class numbers; None where the table has them.
    """

    def __init__(self, config: Any):
        super().__init__(config)
        output = open_output(config.path)
        self.job, self.pieces = job_of(output), Pieces(output, up_to_date(output))
        self._schema = schema_of(first_file(output))
        if "embedding" not in self._schema.names:
            raise OutputError(f"{output}: its embeddings were not written (predict.embeddings=none); label it again with them")
        self.truth = self._truth() if config.truth else None

    def _truth(self) -> TruthTable:
        config, keys = self.config, self.config.truth_on or ["shard", "row"]
        if missing := [key for key in keys if key not in self._schema.names]:
            raise SourceError(f"source.truth_on: the output has no column {missing[0]}; columns: {', '.join(self._schema.names)}")
        return TruthTable(config.truth, keys, config.target_column, self._truth_names())

    def _truth_names(self) -> list[str]:
        """The names of the truth's classes: given, or those that the table holds; numbers are the output's own classes."""
        if self.config.class_names:
            return super().target_names
        truth = read_truth(self.config.truth, [self.config.target_column])[self.config.target_column].drop_null()
        return sorted(set(truth.to_pylist())) if holds_names(truth.type) else self.job["class_names"]

    @property
    def target_names(self) -> list[str] | None:
        return self._truth_names() if self.truth else super().target_names

    def target_type(self) -> pa.DataType:
        return self.truth.targets.type if self.truth else super().target_type()

    def schema(self) -> pa.Schema:
        schema = with_features(self._schema, features_of(self._schema, self.job))
        if not self.truth:
            return schema
        own = schema.get_field_index(self.config.target_column)
        return (schema if own < 0 else schema.remove(own)).append(pa.field(self.config.target_column, self.truth.targets.type))

    @property
    def marks(self) -> dict[str, Any]:
        """What tells this table and truth from others of the same names."""
        truth = place(self.config.truth).info() if self.truth else None
        return {"embeddings": self.job["fingerprint"], "truth file": truth and f"{truth.size} {truth.mtime_ns}"}

    def kept(self) -> pa.Schema:
        schema = self.schema()
        return pa.schema([pa.field(name, find_type(schema, name, "source.teacher_column")) for name in self.config.keep_columns])

    def shards(self) -> Iterator[Shard]:
        yield from self.pieces.shards.values()

    def chunks(self) -> Iterator[Chunk]:
        """The rows as the files have them; with `source.limit` the first of them."""
        left = self.config.limit
        for chunk in self.pieces.chunks():
            if chunk.rows and (left is None or left > 0):
                stop = chunk.stop if left is None else min(chunk.stop, chunk.first + left)
                left = None if left is None else left - (stop - chunk.first)
                yield Chunk(chunk.shard, chunk.url, chunk.version, chunk.first, stop)

    def rows_from(self, chunk: Chunk, first: int) -> Iterator[pa.Table]:
        yield from self.read(Chunk(chunk.shard, chunk.url, chunk.version, first, chunk.stop))

    def read(self, chunk: Chunk) -> Iterator[pa.Table]:
        yield self._table(chunk, ("embedding", "error"))

    def target_values(self, chunks: Iterable[Chunk]) -> set[Any]:
        return {value for chunk in chunks for value in self._table(chunk, ())[TARGET].unique().to_pylist()}

    def _table(self, chunk: Chunk, columns: tuple[str, ...]) -> pa.Table:
        """One chunk, under the names that every source gives its columns."""
        target = self.truth.keys if self.truth else [self.config.target_column]
        rows = self.pieces.read(chunk, list(dict.fromkeys([*columns, *target, *self.config.keep_columns])))
        named = {TARGET: self.truth(rows)[0] if self.truth else rows[self.config.target_column]}
        named |= {KEPT.format(i): rows[name] for i, name in enumerate(self.config.keep_columns)}
        if columns:
            named |= {IMAGE_BYTES: rows["embedding"], READ_ERROR: rows["error"]}
        return pa.table(named)
