"""Repositories of the test Hub: a folder as a tree of files with a commit, as the Hub's API describes it."""

import hashlib
import threading
from functools import cache
from pathlib import Path
from urllib.parse import quote


class Tree:
    """The files of one commit: path -> bytes."""

    def __init__(self, files: dict[str, bytes]):
        self.files = files
        self._oids = {path: hashlib.sha1(data).hexdigest() for path, data in files.items()}
        self.commit = hashlib.sha1(repr(sorted(self._oids.items())).encode()).hexdigest()

    def size(self, path: str) -> int:
        return len(self.files[path])

    def oid(self, path: str) -> str:
        return self._oids[path]

    def entry(self, path: str) -> dict | None:
        if path in self.files:
            return {"type": "file", "oid": self.oid(path), "size": self.size(path), "path": path}
        if any(name.startswith(path + "/") for name in self.files):
            return {"type": "directory", "oid": hashlib.sha1(path.encode()).hexdigest(), "size": 0, "path": path}
        return None

    def entries(self, folder: str, recursive: bool) -> list[dict] | None:
        """Files and folders below `folder`; None when there is no such folder."""
        prefix = folder.rstrip("/") + "/" if folder else ""
        below = [name for name in self.files if name.startswith(prefix)]
        if folder and not below:
            return None
        folders = {name[: len(prefix) + i] for name in below for i, c in enumerate(name[len(prefix) :]) if c == "/"}
        names = sorted({*below, *folders})
        if not recursive:
            names = [name for name in names if "/" not in name[len(prefix) :]]
        return [self.entry(name) for name in names]


class Repo:
    """A folder and its sibling branches; trees that were served stay readable by commit."""

    def __init__(self, base: Path, name: str):
        self.folder = base / name
        self._seen: dict[str, Tree] = {}
        self._lock = threading.Lock()

    def exists(self) -> bool:
        return self.folder.is_dir()

    def branches(self) -> list[str]:
        return ["main"]

    def tree(self, revision: str) -> Tree | None:
        """The tree of a branch or commit; None when there is no such revision."""
        with self._lock:
            if revision in self._seen:
                return self._seen[revision]
            folder = (
                self.folder
                if revision == "main"
                else self.folder.with_name(f"{self.folder.name}@{quote(revision, '')}")
            )
            if not folder.is_dir():
                return None
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            facts = tuple(
                (str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in files
            )
            tree = _read(folder, facts)
            self._seen[tree.commit] = tree
            return tree


@cache
def _read(folder: Path, facts: tuple) -> Tree:
    return Tree({name: (folder / name).read_bytes() for name, _, _ in facts})
