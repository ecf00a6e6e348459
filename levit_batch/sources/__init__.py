"""Sources: one module for each `source.type`, found by that name. A new source is one module with one `Source` in it.

A source lists shards on the driver (footers and listings only) and reads chunks in the replicas; it pickles.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator

import pyarrow as pa

from levit_batch.config import SourceConfig
from levit_batch.plan import Chunk, Shard
from levit_batch.sources.columns import check_columns

READ_ROWS = 64  # rows in one table that `read` yields: enough to amortise calls, few enough to stay in cache


class Source(ABC):
    """Images somewhere, as shards of rows.

    revision: what `source.revision` resolved to, for sources that have revisions.
    """

    revision: str | None = None

    def __init__(self, config: SourceConfig):
        self.config = config

    @abstractmethod
    def shards(self) -> Iterator[Shard]:
        """Every shard in a fixed order. Reads listings and footers, never images.

        Raises SourceError when there is nothing, when something cannot be opened, or when a column is missing.
        """

    @abstractmethod
    def schema(self) -> pa.Schema:
        """The columns that a row of this source has, with the source's own metadata."""

    @abstractmethod
    def read(self, chunk: Chunk) -> Iterator[pa.Table]:
        """The rows of `chunk` in order, as small tables made by `columns.standard_table`.

        Reads no column that the job does not need, and no row outside the chunk where the format allows it.
        Raises OSError when the shard cannot be read now (the chunk is tried again).
        """

    def kept(self) -> pa.Schema:
        """Names and types of `keep_columns`, and the source's metadata. Raises SourceError for unknown columns."""
        return check_columns(self.schema(), self.config)


def open_source(config: SourceConfig) -> Source:
    """The source that `config.type` names, ready to list its shards."""
    module = importlib.import_module(f"levit_batch.sources.{config.type}")
    return module.open_source(config)
