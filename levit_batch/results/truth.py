"""Targets that are kept apart from the images: a table with a key, such as (shard, row), and the truth.

It is a Parquet file, or (ending in .json) what people said in Label Studio of the tasks that we exported.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from levit_batch.errors import SourceError
from levit_batch.results.export.label_studio import read_annotations
from levit_batch.sources.columns.targets import TargetMap
from levit_batch.sources.damage import not_parquet
from levit_batch.storage.place import place
from levit_batch.storage.redact import public_path

SOURCE = "source.truth_on and source.target_column"


class TruthTable:
    """The targets of a table by key: `table(rows)` gives what `TargetMap.apply` does: [N] class numbers, or lists of them, null
    where it has none; and the names [N] that are no class.

    keys: columns that both the output and the file have. name: file and column, as a page may show them. options: what names
    keys and target, for the error. The file's keys and targets are held in memory.
    Raises SourceError when the file cannot be read, lacks a column or names a row twice.
    """

    def __init__(self, path: str, keys: Sequence[str], column: str, class_names: list[str], options: str = SOURCE):
        self.keys, self.name = list(keys), {"table": public_path(path), "column": column}
        table = read_truth(path, [*self.keys, column], options)
        self.index = _index(table.select(self.keys))
        if not self.index.is_unique:
            twice = self.index[self.index.duplicated()][0]
            raise SourceError(
                f"{path}: {', '.join(self.keys)} = {twice} is there more than once; each row needs one truth"
            )
        self.targets, self.missed = TargetMap.make(table[column].type, None, class_names).apply(table[column])

    def __call__(self, rows: pa.Table) -> tuple[pa.Array, pa.Array]:
        at = self.index.get_indexer(_index(rows.select(self.keys)))
        at = pa.array(at, mask=at < 0)
        return self.targets.take(at), self.missed.take(at)


def read_truth(path: str, columns: list[str], options: str = SOURCE) -> pa.Table:
    """`columns` of the file at `path`, the truth the last of them. Raises SourceError."""
    if path.endswith(".json"):
        table = read_annotations(path, columns[-1])
        _require(path, table.schema, columns, options)
        return table.select(columns)
    at = place(path)
    try:
        schema = pq.read_schema(at.path, filesystem=at.filesystem)
        _require(path, schema, columns, options)
        nested = [name for name in columns[:-1] if pa.types.is_nested(schema.field(name).type)]
        if nested:
            raise SourceError(f"{path}: {', '.join(nested)} cannot be a key; a key is a number or a text")
        return pq.read_table(at.path, filesystem=at.filesystem, columns=columns)
    except (pa.ArrowInvalid, OSError) as e:
        raise SourceError(f"{path}: {not_parquet(path, e)}") from None


def _require(path: str, schema: pa.Schema, columns: list[str], options: str) -> None:
    if missing := [name for name in columns if name not in schema.names]:
        there = ", ".join(schema.names)
        raise SourceError(f"{path}: has no column {', '.join(missing)}; its columns are {there}: name them with {options}")


def _index(table: pa.Table) -> pd.Index:
    columns = [
        table[name].to_numpy() if pa.types.is_integer(table[name].type) else _texts(table[name])
        for name in table.schema.names
    ]
    return pd.Index(columns[0]) if len(columns) == 1 else pd.MultiIndex.from_arrays(columns)


def _texts(column: pa.ChunkedArray) -> np.ndarray:
    return np.array(column.to_pylist(), dtype=object)
