"""What may go wrong at any change of the output: the process dies, the store fails, another run steps in."""

import contextlib
import functools
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import levit_batch.storage.place
import levit_batch.table.replace
import pipelines.label.run
from levit_batch.storage.place import Place

LOCAL = ("create", "replace", "link", "unlink", "rmdir", "exchange", "delete")
STORE = ("put", "delete", "copy")


class Dead(BaseException):
    """The process is killed: it does nothing any more, not even in a `finally`."""


@dataclass
class Fault:
    """What happens at the `at`-th change of a kind that the run of this thread makes to the output.

    kind: None: of any; "settle": of any while shards are replaced and retired.

    what: kill, error, call (of `call`); after: the change is made first. times: of so many changes in a row (errors).
    happened: the kind of change that it hit first; settling: whether it hit one while shards were replaced or retired.
    """

    what: str
    at: int
    kind: str | None = None
    after: bool = False
    times: int = 1
    call: Callable[[], None] | None = None
    happened: str | None = None
    settling: bool = False
    dead: bool = False
    seen: int = 0

    def __str__(self) -> str:
        return f"{self.what} {'after' if self.after else 'before'} {self.kind or 'change'} {self.at}" + (
            f" x{self.times}" if self.times > 1 else ""
        )

    def change(self, kind: str, make: Callable[[], Any]) -> Any:
        if self.dead:
            raise Dead
        counts = self.kind in (None, kind) or (self.kind == "settle" and running.settling)
        self.seen += counts
        if not counts or not self.at <= self.seen < self.at + self.times:
            return make()
        self.happened = self.happened or kind
        self.settling = self.settling or running.settling
        if self.what == "call" and not self.after:
            self.call()
        made = make() if self.after or self.what == "call" else None
        if self.what == "kill":
            self.dead = True
            raise Dead
        if self.what == "error":
            raise OSError(5, "Input/output error")
        if self.after:
            self.call()
        return made


class Running(threading.local):
    """What this thread's run is about."""

    fault: Fault | None = None
    root = ""
    settling = False


running = Running()


@contextlib.contextmanager
def faulty(fault: Fault | None, root: str) -> Iterator[None]:
    """The changes that this thread makes below `root` meet the fault."""
    before = running.fault, running.root, running.settling
    running.fault, running.root, running.settling = fault, root, False
    try:
        yield
    finally:
        running.fault, running.root, running.settling = before


@contextlib.contextmanager
def settling_all() -> Iterator[None]:
    """All that is done inside replaces shards."""
    running.settling = True
    yield


def around(kind: str, path: Any, make: Callable[[], Any]) -> Any:
    if running.fault is None or not os.fspath(path).startswith(running.root):
        return make()
    return running.fault.change(kind, make)


class Store:
    """A file system that is no local one; its copies may meet a fault."""

    def __init__(self, filesystem: Any):
        self.filesystem = filesystem

    def __getattr__(self, name: str) -> Any:
        return getattr(self.filesystem, name)

    def copy_file(self, source: str, target: str) -> None:
        around("copy", target, lambda: self.filesystem.copy_file(source, target))


def watch(patch: pytest.MonkeyPatch) -> None:
    """From now on each change of an output goes through `around`."""
    for name, path_at in (("replace", 1), ("link", 1), ("unlink", 0), ("rmdir", 0)):
        patch.setattr(os, name, _watched(name, getattr(os, name), path_at))
    patch.setattr(levit_batch.storage.place, "_create", _watched("create", levit_batch.storage.place._create, 0))
    exchange = levit_batch.table.replace._exchange
    patch.setattr(levit_batch.table.replace, "_exchange", _watched("exchange", exchange, 1))
    put, delete = Place.write_bytes, Place.delete

    def settling(step: Callable[..., Any], *told: Any) -> Any:
        running.settling = True
        settled = step(*told)
        running.settling = False
        return settled

    for name in ("settle", "finish_publish"):
        patch.setattr(pipelines.label.run, name, functools.partial(settling, getattr(pipelines.label.run, name)))

    def write_bytes(place: Place, data: bytes, lasting: bool = True) -> None:
        if place.local:
            return put(place, data, lasting)
        around("put", place.path, lambda: put(place, data, lasting))

    patch.setattr(Place, "write_bytes", write_bytes)
    patch.setattr(Place, "delete", lambda place: around("delete", place.path, lambda: delete(place)))


def _watched(kind: str, make: Callable[..., Any], path_at: int) -> Callable[..., Any]:
    def watched(*arguments: Any, **options: Any) -> Any:
        if not isinstance(arguments[path_at], str) or options:
            return make(*arguments, **options)
        return around(kind, arguments[path_at], lambda: make(*arguments))

    return watched
