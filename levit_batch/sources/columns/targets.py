"""From the truth as a source has it (numbers, names, several of them a row) to the model's class numbers."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.errors import SourceError
from levit_batch.sources.columns.types import is_list, is_text
from levit_batch.storage.redact import redact

NO_CLASS = -1
NAME = 40  # characters of a name that matches nothing
PLACEHOLDER = re.compile(r"(?:label|class)?[ _-]?(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class TargetMap:
    """Maps a column of targets to the model's classes. Pickles.

    output_type: int32, or list<int32> where a row has several truths.
    numbers: model class of each number of the source; None: the source's numbers are the model's.
    names: model class of each name of the source, exactly spelt; `loose`: the same spelt as `loosely` does.
    spelt: the names of the source's numbers, where they have any.
    """

    output_type: pa.DataType
    classes: int
    numbers: tuple[int, ...] | None
    names: dict[str, int]
    loose: dict[str, int]
    spelt: tuple[str, ...] = ()

    @property
    def meaning(self) -> list[Any]:
        """What each target of the source means, in JSON values."""
        numbers = range(self.classes) if self.numbers is None else self.numbers
        return [str(self.output_type), list(numbers), self.names, self.loose]

    @staticmethod
    def make(kind: pa.DataType, source_names: list[str] | None, model_names: list[str]) -> "TargetMap":
        """kind: the column's type; source_names: the names of its numbers where they are known, or, for a column of
        names, lines `value<TAB>name of the class`.

        Raises SourceError for a type that cannot be a target, and when no source name is a class of the model.
        """
        several = is_list(kind)
        value = kind.value_type if several else kind
        if not (holds_names(value) or pa.types.is_integer(value) or pa.types.is_boolean(value)):
            raise SourceError(
                f"source.target_column is {kind}; it must be a class number, a class name, or a list of them"
            )
        names, loose = _by_name(model_names)
        numbers, spelt = None, ()
        if source_names and holds_names(value):
            names, loose = _with_aliases(source_names, names, loose)
        elif source_names:
            spelt = tuple(line.split("\t")[-1] for line in source_names)
            numbers = _numbers(spelt, model_names, names, loose)
        return TargetMap(pa.list_(pa.int32()) if several else pa.int32(), len(model_names), numbers, names, loose, spelt)

    def apply(self, column: pa.Array) -> tuple[pa.Array, pa.Array]:
        """Class numbers [N], null (or left out of their list) for what is no class of the model; and the names [N] of that, null
        (or left out) for what is one, cut to `NAME` characters.

        A null and the number -1 (`ClassLabel`'s "unknown") are rows without a truth: null in both.
        """
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if not pa.types.is_list(self.output_type):
            return self._values(column)
        column = column.cast(pa.list_(column.type.value_type)) if not pa.types.is_list(column.type) else column
        classes, missed = self._values(column.flatten())
        return _listed(classes, column), _listed(missed, column)

    def _values(self, column: pa.Array) -> tuple[pa.Array, pa.Array]:
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if holds_names(column.type):
            return self._texts(column)
        values = pc.fill_null(column.cast(pa.int64()), NO_CLASS).to_numpy(zero_copy_only=False)
        table = np.arange(self.classes) if self.numbers is None else np.array(self.numbers, np.int64)
        inside = (values >= 0) & (values < len(table))
        classes = np.where(inside, table[np.where(inside, values, 0)], NO_CLASS)
        coded = pa.array(values, mask=(classes != NO_CLASS) | (values == NO_CLASS)).dictionary_encode()
        missed = pa.array([self._spelt(value) for value in coded.dictionary.to_pylist()], pa.string()).take(coded.indices)
        return pa.array(classes.astype(np.int32), mask=classes == NO_CLASS), missed

    def _texts(self, column: pa.Array) -> tuple[pa.Array, pa.Array]:
        coded = column.dictionary_encode()
        names = coded.dictionary.to_pylist()
        classes = [self._find(name) for name in names]
        missed = [_shown(name) if i is None else None for name, i in zip(names, classes, strict=True)]
        return pa.array(classes, pa.int32()).take(coded.indices), pa.array(missed, pa.string()).take(coded.indices)

    def _spelt(self, value: int) -> str:
        return _shown(self.spelt[value]) if 0 <= value < len(self.spelt) else str(value)

    def _find(self, name: str) -> int | None:
        return self.names.get(name, self.loose.get(loosely(name)))


def _listed(values: pa.Array, lists: pa.Array) -> pa.Array:
    """`values`, one for each in `lists` [N], as lists again, without the nulls."""
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    rows = np.repeat(np.arange(len(lists)), lengths)[values.is_valid().to_numpy(zero_copy_only=False)]
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(lists)))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values.drop_null(), mask=lists.is_null())


def _shown(name: str) -> str:
    """A name as reports spell it: a text column that was taken for a target holds whole sentences, or addresses with secrets."""
    name = redact(" ".join(name.split())) or "(empty)"
    return name if len(name) <= NAME else name[: NAME - 1] + "…"


def loosely(name: str) -> str:
    """How names are compared when they are not spelt alike: case, underscores, hyphens and runs of spaces do not count."""
    return " ".join(re.split(r"[\s_-]+", name.strip())).casefold()


def _by_name(model_names: list[str]) -> tuple[dict[str, int], dict[str, int]]:
    """Model classes by exact and by loose spelling; a spelling that two classes share names neither."""
    exact = _unique((name, i) for i, name in enumerate(model_names))
    exact = {name: i for i, name in enumerate(told_apart(model_names))} | exact
    loose = _unique((loosely(name), i) for i, name in enumerate(model_names))
    # "tench, Tinca tinca" is also found as "tench", as long as no other class is a tench.
    parts = _unique((loosely(p), i) for i, name in enumerate(model_names) for p in {*name.split(",")} if p.strip())
    return exact, parts | loose


def told_apart(names: list[str]) -> list[str]:
    """The names of the classes, such as stand for several classes with their numbers: ImageNet has crane (134), crane (517)."""
    times = Counter(names)
    return [name if times[name] == 1 else f"{name} ({i})" for i, name in enumerate(names)]


def _unique(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    pairs = list(pairs)
    times = Counter(name for name, _ in pairs)
    return {name: i for name, i in pairs if times[name] == 1}


def _with_aliases(lines: list[str], names: dict[str, int], loose: dict[str, int]) -> tuple[dict, dict]:
    """Values of the source that stand for a class of another name, as `n01440764<TAB>tench, Tinca tinca`."""
    aliases = dict(line.split("\t", 1) for line in lines if "\t" in line)
    classes = {value: names.get(name, loose.get(loosely(name))) for value, name in aliases.items()}
    if aliases and not any(i is not None for i in classes.values()):
        raise SourceError(_no_match(list(aliases.values()), list(names)))
    return names | {value: i for value, i in classes.items() if i is not None}, loose


def _numbers(source: Sequence[str], model: list[str], names: dict[str, int], loose: dict[str, int]) -> tuple[int, ...]:
    """The model class of each of the source's class numbers."""
    if list(source) == model:
        return tuple(range(len(model)))
    # The same name twice (ImageNet has two cranes): the first of the source is the first of the model.
    twice = {(name, n): i for i, (name, n) in enumerate(_numbered(model))}
    classes = tuple(
        names.get(name, twice.get((name, n), loose.get(loosely(name), NO_CLASS))) for name, n in _numbered(source)
    )
    if any(i != NO_CLASS for i in classes):
        return classes
    if _placeholders(model):
        return tuple(range(len(model)))
    raise SourceError(_no_match(source, model))


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    seen: Counter[str] = Counter()
    numbered = []
    for name in names:
        numbered.append((name, seen[name]))
        seen[name] += 1
    return numbered


def _placeholders(names: list[str]) -> bool:
    """Whether the model's names say nothing but the number: LABEL_0, LABEL_1, ..."""
    return all((match := PLACEHOLDER.fullmatch(name)) and int(match[1]) == i for i, name in enumerate(names))


def _no_match(source: Sequence[str], model: list[str]) -> str:
    return (
        f"source.target_column: none of its {len(source)} class names ({', '.join(source[:3])}, ...) is a class of the "
        f"model ({', '.join(model[:3])}, ...); set source.class_names to a file with the model's name of each class, one a line"
    )


def holds_names(kind: pa.DataType) -> bool:
    return is_text(kind.value_type if pa.types.is_dictionary(kind) else kind)
