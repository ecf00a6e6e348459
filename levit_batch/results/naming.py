"""What a table's columns say to people: which of them names the file that a row is, which were kept, what class numbers mean."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from levit_batch.job.row import RESERVED, kept_name

FILE_COLUMNS = ("file_name", "__key__", "{}.path", "{}")  # of image folders, of tars, of an image column


@dataclass(frozen=True)
class Naming:
    """The class names; the `column` that names each row's file (None: none does); `kept` columns, that one first."""

    classes: Sequence[str]
    column: str | None = None
    kept: tuple[str, ...] = ()

    @property
    def columns(self) -> list[str]:
        """What is to be read of a table for it."""
        return list(dict.fromkeys([*([self.column] if self.column else []), *self.kept]))


def naming_of(job: dict[str, Any], schema: pa.Schema, kept: bool = False) -> Naming:
    """Of the output whose job.json is `job` and whose files have this `schema`. kept: with its kept columns."""
    column = file_column(schema, job["config"]["source"].get("image_column", "image"))
    return Naming(job["class_names"], column, tuple(kept_columns(schema, column)) if kept else ())


def file_column(schema: pa.Schema, image_column: str) -> str | None:
    """The column of an output that names the file which a row is, as far as one was kept: else shard and row must do."""
    names = [kept_name(pattern.format(image_column)) for pattern in FILE_COLUMNS]
    return next((name for name in names if name in schema.names and _is_text(schema.field(name).type)), None)


def kept_columns(schema: pa.Schema, first: str | None = None) -> list[str]:
    """The columns of an output that were carried over from the source; the column `first` before all others."""
    return sorted((name for name in schema.names if name not in RESERVED), key=lambda name: name != first)


def untaken(name: str, taken: Collection[str]) -> str:
    """What a column of the source is called beside ours, `taken` (in lower case)."""
    return f"source_{name}" if name.lower() in taken else name


def with_kept(row: dict[str, Any], kept: dict[str, Any]) -> dict[str, Any]:
    """`row` with the `kept` columns of its source after shard and row; one called as a column of ours is `source_<name>`."""
    theirs = {untaken(name, row): value for name, value in kept.items()}
    return {"shard": row["shard"], "row": row["row"], **theirs} | row


def _is_text(kind: pa.DataType) -> bool:
    return any(of(kind) for of in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
