"""Where a night's table lies: on a disk, on one that cannot exchange folders, in memory without rename, on S3."""

import itertools
import json
import os
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from pyarrow import fs

import levit_batch.table.replace
from levit_batch.storage.place import Place
from levit_batch.storage.place import place as plain_place
from levit_batch.table.lock import bury
from tests.support.nights_faults import LOCAL, STORE, Store

NOBODY = 1 << 30  # no process has so high a number
numbers = itertools.count()


class Disk:
    """exchanges: whether two folders can change places in one step, so that a shard is never seen half replaced."""

    exchanges, kinds = True, LOCAL

    def __init__(self, folder: Path):
        self.url = str(folder / "out")

    def place(self, url: str) -> Place:
        return plain_place(url)

    def use(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(levit_batch.table.output, "place", self.place)

    @property
    def root(self) -> Place:
        return self.place(self.url)

    def files(self) -> dict[str, fs.FileInfo]:
        """Every file of the output, by its path in it."""
        root = self.root
        return {info.path[len(root.path) + 1 :]: info for info in root.list() if info.type == fs.FileType.File}

    def bury(self) -> None:
        """The runs before are dead: the process that their claims and temporary files name is none any more."""
        for name in self.files():
            if name.endswith(".tmp"):
                os.rename(f"{self.url}/{name}", f"{self.url}/{name.replace(f'.{os.getpid()}.', f'.{NOBODY}.')}")
            if name.startswith("_lock/") and name.endswith(".json"):
                at = self.root.join(name)
                at.write_bytes(json.dumps(json.loads(at.read_bytes() or b"{}") | {"process": "0"}).encode())

    def rob(self) -> None:
        """Their holders are taken for dead, as by a run on another machine."""
        for name in self.files():
            if name.startswith("_lock/") and name.endswith(".json"):
                at = self.root.join(name)
                bury(at, self.root.join(name.replace(".json", ".dead")), {"machine": "elsewhere"})

    def clear(self) -> None:
        shutil.rmtree(self.url, ignore_errors=True)


class PlainDisk(Disk):
    exchanges = False

    def use(self, patch: pytest.MonkeyPatch) -> None:
        super().use(patch)
        patch.setattr(levit_batch.table.replace, "_exchange", lambda one, other: False)


class Apart(fs.FSSpecHandler):
    """Who opens a file reads it alone: fsspec's memory gives all of them one position."""

    def open_input_file(self, path: str) -> pa.NativeFile:
        try:
            return pa.BufferReader(self.fs.store[self.fs._strip_protocol(path)].getvalue())
        except KeyError:
            raise FileNotFoundError(path) from None

    open_input_stream = open_input_file


class Memory(Disk):
    """An object store: no rename, no folders."""

    exchanges, kinds = False, STORE

    def __init__(self, folder: Path):
        self.url = f"memory://nights-{next(numbers)}/out"

    def place(self, url: str) -> Place:
        filesystem = fs.PyFileSystem(Apart(MemoryFileSystem()))
        return Place(Store(filesystem), "/" + url.removeprefix("memory://"), url)

    def clear(self) -> None:
        MemoryFileSystem.store.clear()
        MemoryFileSystem.pseudo_dirs[:] = [""]


class S3(Disk):
    """moto's server, as pyarrow's own client sees it."""

    exchanges, kinds = False, STORE

    def __init__(self, folder: Path):
        self.url = f"s3://pictures/nights-{next(numbers)}/out"

    def place(self, url: str) -> Place:
        found = plain_place(url)
        return Place(Store(found.filesystem), found.path, found.url)

    def clear(self) -> None:
        for name in self.files():
            self.root.join(name).delete()


STORES = {"disk": Disk, "plain": PlainDisk, "memory": Memory, "s3": S3}
