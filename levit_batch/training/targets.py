"""The truth and a teacher's answers as the student's class numbers."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.errors import SourceError
from levit_batch.job.chunks import Chunk
from levit_batch.levit.checkpoint import Checkpoint
from levit_batch.sources.columns.standard import find_type, label_names
from levit_batch.sources.columns.targets import TargetMap, holds_names
from levit_batch.sources.columns.types import is_list
from levit_batch.sources.source import Source


def student_names(source: Source, start: Checkpoint | None, chunks: Iterable[Chunk]) -> list[str]:
    """The names of the classes to learn, in index order.

    The target's own: `source.class_names`, or a ClassLabel's, or the names that a text column holds, sorted. Where those
    are the checkpoint's, and for numbers without names, the checkpoint's, so that its heads go on learning. Raises
    SourceError where nothing says.
    """
    own = [name.split("\t")[-1] for name in source.target_names or []]
    if not own and holds_names(source.target_type()):
        return _names_held(source, start, chunks)
    if start and (not own or _same_classes(own, start)):
        return start.class_names
    if not own:
        raise SourceError(
            f"source.target_column: {source.config.target_column} is {source.target_type()} without class names (a Hugging "
            "Face ClassLabel has them); give source.class_names, a text file with one class a line"
        )
    if len(own) < 2 or len(set(own)) < len(own):
        raise SourceError("source.class_names: name two or more classes, each once")
    return own


def _names_held(source: Source, start: Checkpoint | None, chunks: Iterable[Chunk]) -> list[str]:
    names = sorted(value for value in source.target_values(chunks) if value is not None)
    if start and not TargetMap.make(pa.string(), None, start.class_names).apply(pa.array(names, pa.string()))[0].null_count:
        return start.class_names
    if len(names) < 2:
        raise SourceError(
            f"source.target_column: {source.config.target_column} holds {len(names)} class ({', '.join(names)}); "
            "training needs two or more"
        )
    return names


def _same_classes(own: list[str], start: Checkpoint) -> bool:
    if len(own) != len(start.class_names) or not start.config.has_own_class_names:
        return False
    try:
        numbers = TargetMap.make(pa.int64(), own, start.class_names).numbers
    except SourceError:
        return False
    return numbers == tuple(range(len(own)))


class ClassColumn:
    """Class numbers of one column. Pickles.

    `ClassColumn(...)(column, where)` gives one int or None (no answer: null, or -1) a row. Raises SourceError for values that
    are no class, for a row with several answers, and where there is no such column.
    """

    def __init__(self, source: Source, column: str, key: str, names: list[str]):
        kind = find_type(source.schema(), column, key)
        own = source.target_names if column == source.config.target_column else label_names(source.schema(), column)
        if is_list(kind):
            raise SourceError(f"{key}: {column} is {kind}; training takes one class a row")
        self.column, self.key, self.names = column, key, names
        self.map = TargetMap.make(kind, own, names)

    def __call__(self, column: pa.Array | pa.ChunkedArray, where: str) -> list[int | None]:
        if pa.types.is_null(column.type):
            return [None] * len(column)
        numbers, missed = self.map.apply(column)
        if missed.null_count < len(missed):
            wrong = pc.filter(column, pc.and_(numbers.is_null(), column.is_valid())).to_pylist()
            value = next(value for value in wrong if value != -1)
            raise SourceError(
                f"{self.key}: {where}: {self.column} is {value!r}, which is none of the {len(self.names)} classes "
                f"({', '.join(self.names[:3])}, ...); correct the column, or give source.class_names"
            )
        return numbers.to_pylist()
