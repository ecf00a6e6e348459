"""The truth and the teacher's answers as class numbers, whatever the column holds."""

import json
from pathlib import Path

import pyarrow as pa

from levit_batch.config import SourceConfig
from levit_batch.errors import SourceError
from levit_batch.sources import Source
from levit_batch.sources.columns import find_type


def class_names(source: Source, known: list[str] | None) -> list[str]:
    """The target's class names in index order.

    From the first of: `source.class_names` (a text file), the ClassLabel of the target column, the names `known` (the
    checkpoint's own, which only a column of names or of numbers below their count can mean). Raises SourceError where
    none of them says.
    """
    config = source.config
    if config.class_names:
        return _from_file(config.class_names)
    schema = source.schema()
    if names := _class_label(schema, config.target_column):
        return names
    if known:
        return known
    raise SourceError(
        f"source.target_column: {config.target_column} is {find_type(schema, config.target_column, 'target_column')} "
        "without class names (a Hugging Face ClassLabel has them); give source.class_names, a text file with one a line"
    )


def _from_file(path: str) -> list[str]:
    try:
        names = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as e:
        raise SourceError(f"source.class_names: {path} cannot be read: {e}; name a text file, one class a line") from e
    if len(names) < 2 or len(set(names)) < len(names):
        raise SourceError(f"source.class_names: {path} must name two or more classes, each once")
    return names


def _class_label(schema: pa.Schema, column: str) -> list[str] | None:
    try:
        found = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError):
        return None
    return list(found) if isinstance(found, list) and len(found) > 1 else None


class Targets:
    """Turns values of a column into class numbers.

    `number(value, where)` gives an int in 0..K-1, or None for a null (or Hugging Face's -1, "not labelled"). Raises
    SourceError for a value that is no class.
    """

    def __init__(self, names: list[str], config: SourceConfig):
        self.index = {name: i for i, name in enumerate(names)}
        self.count = len(names)
        self.column = config.target_column

    def number(self, value: object, where: str, column: str | None = None) -> int | None:
        if value is None or value == -1:
            return None
        found = self.index.get(value) if isinstance(value, str) else value
        if isinstance(found, bool) or not isinstance(found, int) or not 0 <= found < self.count:
            raise SourceError(
                f"{where}: {column or self.column} is {value!r}, which is none of the {self.count} classes; "
                "check the column, or give source.class_names"
            )
        return found
