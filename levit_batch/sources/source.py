"""Sources: one module for each `source.type`, found by that name. A new source is one module with one `Source` in it.

A source lists shards on the driver (footers and listings only) and reads chunks in the replicas; it pickles.
"""

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa

from levit_batch.errors import SourceError
from levit_batch.job.chunks import Chunk, Shard
from levit_batch.job.config import SourceConfig
from levit_batch.job.row import TARGET
from levit_batch.sources.columns.before import as_before
from levit_batch.sources.columns.images import check_paths
from levit_batch.sources.columns.standard import check_columns, find_type, label_names
from levit_batch.sources.cursor import Cursor
from levit_batch.sources.footers import Footers
from levit_batch.storage.place import place
from levit_batch.storage.url import scheme

NOT_SENT = ("_cursor", "footers")
HUB_VARIABLES = ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET")


class Source(ABC):
    """Images somewhere, as shards of rows.

    revision: what `source.revision` resolved to, for sources that have revisions.
    cuts_shards: shards are cut out of a listing: one that is gone was cut anew, and its rows now stand in others.
    driver_only: attributes that replicas do not need and that would be large to send.
    row_name: the kept column that names a row wherever it stands, of a source that cuts shards out of a listing of names.
    leave_out: a folder or URL whose files are no part of the source: the output, where it lies inside.
    finds_images: the source itself knows where the images are that its image column names.
    footers: what is known of files without opening them; on the driver.
    before: the kept columns as a table has them that is there, and goes on; set before anything is read.
    """

    revision: str | None = None
    cuts_shards: bool = False
    driver_only: tuple[str, ...] = ()
    row_name: str = ""
    finds_images: bool = False
    leave_out: str | None = None
    before: pa.Schema | None = None

    def __init__(self, config: SourceConfig):
        if config.root and not scheme(config.root):
            config = config.model_copy(update={"root": os.path.abspath(os.path.expanduser(config.root))})
        self.config, self.footers = config, Footers()
        self._cursor = Cursor(self.rows_from)

    @abstractmethod
    def shards(self) -> Iterator[Shard]:
        """Every shard in a fixed order. Reads listings and footers, never images.

        Raises SourceError when there is nothing, when something cannot be opened, or when a column is missing.
        """

    def count(self, shard: Shard, most: int) -> int:
        """The rows of a shard that does not know them, as far as `most`. Reads them, unless the source knows better."""
        rows, tables = 0, self.rows_from(Chunk(shard.name, shard.url, shard.version, 0, None), 0)
        while rows < most and (table := next(tables, None)) is not None:
            rows += table.num_rows
        return min(rows, most)

    @abstractmethod
    def schema(self) -> pa.Schema:
        """The columns that a row of this source has, with the source's own metadata."""

    @cached_property
    def like(self) -> pa.Schema:
        """The types that rows are read as: those of `schema`, which may be the first shard's, but where a table is there, its
        kept columns keep theirs."""
        return self.schema() if self.before is None else as_before(self.schema(), self.before)

    @abstractmethod
    def rows_from(self, chunk: Chunk, first: int) -> Iterator[pa.Table]:
        """The rows of the chunk's shard from row `first` to the shard's end, as small tables (see `tables`).

        What cannot be read now raises OSError and is tried again from the row where it broke off; what never will be
        readable (damaged data) comes as rows of `columns.error_table`. It is closed early when the chunk ends.
        """

    def read(self, chunk: Chunk) -> Iterator[pa.Table]:
        """The rows of `chunk` in order, as small tables (see `tables`).

        Reads no column that the job does not need. Rows before the chunk are read only where the format cannot skip
        them and the last chunk read was not the one before. Raises OSError when the shard cannot be read now.
        """
        return self._cursor.read(chunk)

    def kept(self) -> pa.Schema:
        """Names and types of `keep_columns`, and the source's metadata. Raises SourceError for unknown columns, and for
        images by path that are not looked up."""
        kept = check_columns(self.like, self.config)
        if not self.finds_images:
            check_paths(find_type(self.like, self.config.image_column, "source.image_column"), self.config)
        return kept

    def target_type(self) -> pa.DataType:
        """The type of the target column. Raises SourceError when there is no such column."""
        return find_type(self.like, self.config.target_column or "", "source.target_column")

    @property
    def target_names(self) -> list[str] | None:
        """The names of the target's class numbers: from `source.class_names`, or as the source says; None: unknown."""
        if self.config.class_names:
            return read_class_names(self.config.class_names)
        return label_names(self.schema(), self.config.target_column) if self.config.target_column else None

    def row_names(self) -> pa.ChunkedArray | None:
        """What the column `row_name` holds for every row that the source has now; None without such a column."""
        return None

    def target_values(self, chunks: Iterable[Chunk]) -> set[Any]:
        """The distinct targets of `chunks`. Reads every row, images too, unless the source knows better."""
        return {value for chunk in chunks for table in self.read(chunk) for value in table[TARGET].unique().to_pylist()}

    def __getstate__(self) -> dict[str, Any]:
        """Everything but open files; the Hub's token travels with it, and lives in no attribute that could be shown."""
        state = {name: value for name, value in self.__dict__.items() if name not in NOT_SENT + self.driver_only}
        return state | {"_environment": _hub_environment(self.config)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.pop("_environment").items():
            os.environ.setdefault(name, value)
        self.__dict__.update(state)
        self.footers = Footers()
        self._cursor = Cursor(self.rows_from)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config.type})"


def _hub_environment(config: SourceConfig) -> dict[str, str]:
    """What a worker on another machine needs to be let into the Hub."""
    paths = [config.path] if isinstance(config.path, str) else config.path
    if config.type != "huggingface" and not any(scheme(path or "") == "hf" for path in [*paths, config.root]):
        return {}
    from huggingface_hub import get_token

    token = get_token()
    settings = {name: os.environ[name] for name in HUB_VARIABLES if name in os.environ}
    return settings | ({"HF_TOKEN": token} if token else {})


def read_class_names(path: str) -> list[str]:
    """The lines of a text file. Raises SourceError when it cannot be read or is empty."""
    try:
        lines = place(path).read_bytes().decode().splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise SourceError(f"source.class_names: {path} (relative to {Path.cwd()}) cannot be read: {e}") from None
    if not any(lines):
        raise SourceError(f"source.class_names: {path} is empty; write one class name a line")
    return [line.strip(" \r") for line in lines]


def open_source(config: SourceConfig) -> Source:
    """The source that `config.type` names, ready to list its shards."""
    module = importlib.import_module(f"levit_batch.sources.{config.type}")
    return module.open_source(config)
