"""A source on disk that changes from night to night, and what it holds: the truth that a table is held against."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.support.nights_images import BROKEN, NONE

SECOND = 1_000_000_000


@dataclass(frozen=True)
class Row:
    """key: what the table's kept column must hold; image: its number, or BROKEN, NONE, MISSING."""

    key: str
    image: int


Rows = tuple[Row, ...]


class World:
    """Files below `root`, changed by random `step`s; each write gets a later modification time."""

    type: str
    key_column = "id"
    moves_rows = False  # from shard to shard, as an image folder does
    tells_versions = True  # what changes between plan and reading is found out

    def __init__(self, folder: Path, chance: random.Random):
        self.root, self.outside, self.chance = folder / "source", folder / "outside", chance
        self.unsure: set[int] = set()  # images whose file was once broken or missing, which no version of a shard tells
        self.count = 0  # of writes, rows and images so far: each is another one
        self.root.mkdir(parents=True)
        self.outside.mkdir()

    def config(self) -> dict[str, Any]:
        return {"type": self.type, "path": str(self.root), "keep_columns": [self.key_column]}

    def truth(self) -> dict[str, Rows]:
        """The rows of each shard that the source has now."""
        raise NotImplementedError

    def refused(self) -> bool:
        """Whether a run may say that this source cannot be read."""
        raise NotImplementedError

    def mended(self) -> set[int]:
        """Those of the `unsure` that can be read now."""
        return set()

    def heal(self) -> None:
        """Make it readable."""
        raise NotImplementedError

    def steps(self) -> dict[str, tuple[int, Callable[[], str | None]]]:
        """What may happen between two nights: name to how often, and the change, which tells what it changed."""
        raise NotImplementedError

    def step(self) -> str:
        """One random change; what it was."""
        steps = self.steps()
        name = self.chance.choices(list(steps), [weight for weight, _ in steps.values()])[0]
        return f"{name} {steps[name][1]() or '(nothing)'}"

    def next(self) -> int:
        self.count += 1
        return self.count

    def row(self) -> Row:
        number = self.next()
        image = self.chance.choices([number, BROKEN, NONE], [30, 1, 1])[0]
        return Row(f"row {number}", image)

    def rows(self, most: int = 12) -> Rows:
        return tuple(self.row() for _ in range(self.chance.randint(1, most)))

    def put(self, path: Path, data: bytes) -> None:
        """A file written in one step, with a time of its own."""
        path.parent.mkdir(parents=True, exist_ok=True)
        part = self.outside / "part"
        part.write_bytes(data)
        stamp = (1_700_000_000 + self.next()) * SECOND
        os.utime(part, ns=(stamp, stamp))
        os.replace(part, path)

    def remove(self, path: Path) -> None:
        path.unlink()
        while not any(path.parent.iterdir()) and path.parent not in (self.root, self.outside):
            path = path.parent
            path.rmdir()


def another(rows: Rows, at: int, **changes: Any) -> Rows:
    return (*rows[:at], replace(rows[at], **changes), *rows[at + 1 :])
