"""Every operation on one folder or prefix, one after the other; one of them fails, is cut off, is slow, or the process dies.

Threads of a pool become calls in a row (`Inline`), so that a command makes the same operations each time and a case is a number.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import fs

import levit_batch.storage.place
import levit_batch.table.replace
from levit_batch.storage.place import Place
from tests.support.nights_faults import Dead

SLOW = 0.02  # seconds
READS = ("look", "list", "open")
OF_READS = ("fail", "cut", "slow", "gone")
OF_CHANGES = ("kill before", "kill after", "kill amid", "fail", "fail after", "cut", "slow", "gone")
AMID = ("write", "rmtree")  # of which a half can be done


class Operations:
    """What a command does below `root`; the `at`-th operation meets `what`; all from there on do where that is "gone".

    trace: kind and path of each. happened: the kind of the one that was met.
    """

    def __init__(self, root: str, what: str = "", at: int = 0):
        self.root, self.what, self.at = root, what, at
        self.trace: list[tuple[str, str]] = []
        self.happened, self.dead = "", False

    def meet(self, kind: str, path: str, make: Callable[[], Any], half: Callable[[], Any] | None) -> Any:
        if self.dead:
            raise Dead
        self.trace.append((kind, path[len(self.root) :]))
        now = len(self.trace)
        if not self.at or now < self.at or (now > self.at and self.what != "gone"):
            return make()
        self.happened = self.happened or kind
        return getattr(self, self.what.replace(" ", "_"))(kind, make, half)

    def kill_before(self, kind: str, make: Callable[[], Any], half: Callable[[], Any] | None) -> None:
        self.dead = True
        raise Dead

    def kill_after(self, kind: str, make: Callable[[], Any], half: Callable[[], Any] | None) -> None:
        make()
        self.kill_before(kind, make, half)

    def kill_amid(self, kind: str, make: Callable[[], Any], half: Callable[[], Any] | None) -> None:
        if half:  # a sign of life, on a slow machine, shifts the numbers
            half()
        self.kill_before(kind, make, half)

    def fail(self, kind: str, make: Callable[[], Any], half: Callable[[], Any] | None) -> None:
        raise OSError(5, "Input/output error")

    gone = fail

    def fail_after(self, kind: str, make: Callable[[], Any], half: Callable[[], Any] | None) -> None:
        make()
        raise OSError(5, "Input/output error")

    def cut(self, kind: str, make: Callable[[], Any], half: Callable[[], Any] | None) -> Any:
        """Half of a file is read, as if it were all; half of a write is made, and fails."""
        if kind in READS:
            return half() if half else make()
        if half:
            half()
        raise OSError(28, "No space left on device")

    def slow(self, kind: str, make: Callable[[], Any], half: Callable[[], Any] | None) -> Any:
        time.sleep(SLOW)
        return make()


class Now:
    operations: Operations | None = None


@contextlib.contextmanager
def watched(operations: Operations) -> Iterator[Operations]:
    Now.operations = operations
    try:
        yield operations
    finally:
        Now.operations = None


def around(kind: str, path: Any, make: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
    now = Now.operations
    if now is None or not isinstance(path, str | os.PathLike) or not os.fspath(path).startswith(now.root):
        return make()
    return now.meet(kind, os.fspath(path), make, half)


class Watching:
    """A file system whose operations go through `around`. plain: the one that does them."""

    plain: Any

    def get_file_info(self, asked: Any) -> Any:
        if isinstance(asked, fs.FileSelector):
            return around("list", asked.base_dir, lambda: self.plain.get_file_info(asked))
        return around("look", asked, lambda: self.plain.get_file_info(asked))

    def open_input_stream(self, path: str, **options: Any) -> Any:
        return around("open", path, lambda: self.plain.open_input_stream(path, **options), lambda: self._half(path))

    def open_input_file(self, path: str) -> Any:
        return around("open", path, lambda: self.plain.open_input_file(path), lambda: self._half(path))

    def delete_file(self, path: str) -> None:
        around("delete", path, lambda: self.plain.delete_file(path))

    def copy_file(self, source: str, target: str) -> None:
        around("copy", target, lambda: self.plain.copy_file(source, target))

    def _half(self, path: str) -> pa.BufferReader:
        with self.plain.open_input_stream(path) as stream:
            data = stream.read()
        return pa.BufferReader(data[: len(data) // 2])


class OnDisk(Watching, fs.LocalFileSystem):
    """A local one still, for whoever asks."""

    plain = fs.LocalFileSystem()


class InStore(Watching):
    def __init__(self, filesystem: Any):
        self.plain = filesystem

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plain, name)


def seen(place: Place) -> Place:
    """The same place, its operations watched."""
    return Place(OnDisk() if place.local else InStore(place.filesystem), place.path, place.url)


class Written:
    """A file that is being written."""

    def __init__(self, file: Any, path: str):
        self.file, self.path = file, path

    def write(self, data: Any) -> Any:
        def half() -> None:
            self.file.write(memoryview(data)[: len(data) // 2])
            self.file.flush()

        return around("write", self.path, lambda: self.file.write(data), half)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)

    def __enter__(self) -> "Written":
        return self

    def __exit__(self, *error: Any) -> None:
        self.file.close()


class Inline(Executor):
    """A pool of threads that does what it is given at once, in the thread that gives it."""

    def __init__(self, *_: Any, **__: Any):
        pass

    def submit(self, call: Callable[..., Any], /, *given: Any, **named: Any) -> Future:
        future: Future = Future()
        try:
            future.set_result(call(*given, **named))
        except BaseException as e:
            future.set_exception(e)
        return future


POOLS = (
    "table.compact", "table.copy", "table.reopen", "table.books", "table.scan",
    "storage.find", "sources.tables", "sources.footers",
)  # fmt: skip


def watch(patch: pytest.MonkeyPatch) -> None:
    """From now on what is done to files of a disk, and to objects, goes through `around`; pools work in a row."""
    for name, path_at in (("replace", 1), ("link", 1), ("unlink", 0), ("rmdir", 0)):
        patch.setattr(os, name, _change(name, getattr(os, name), path_at))
    exchange = levit_batch.table.replace._exchange
    patch.setattr(levit_batch.table.replace, "_exchange", _change("exchange", exchange, 1))
    create, rmtree, put = levit_batch.storage.place._create, shutil.rmtree, Place.write_bytes

    def _create(path: str) -> Written:
        return Written(around("create", path, lambda: create(path)), path)

    def remove(path: Any, *given: Any, **named: Any) -> None:
        def half() -> None:
            files = sorted(os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
            for file in files[: len(files) // 2]:
                os.remove(file)

        around("rmtree", path, lambda: rmtree(path, *given, **named), half)

    def write_bytes(place: Place, data: bytes, lasting: bool = True) -> None:
        if place.local:
            return put(place, data, lasting)
        around("put", place.path, lambda: put(place, data, lasting))

    patch.setattr(levit_batch.storage.place, "_create", _create)
    patch.setattr(shutil, "rmtree", remove)
    patch.setattr(Place, "write_bytes", write_bytes)
    for module in POOLS:
        patch.setattr(f"levit_batch.{module}.ThreadPoolExecutor", Inline)
    patch.setattr("pipelines.rescore.score.ThreadPoolExecutor", Inline)


def _change(kind: str, make: Callable[..., Any], path_at: int) -> Callable[..., Any]:
    def changed(*given: Any, **named: Any) -> Any:
        return make(*given, **named) if named else around(kind, given[path_at], lambda: make(*given))

    return changed
