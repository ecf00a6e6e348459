"""File, folder, glob or URL to a sorted list of files with their identity."""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from levit_batch.errors import SourceError
from levit_batch.storage import Place, place, scheme

GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class File:
    """name: path relative to what was asked for; stamp: what changes when the content does (etag or mtime)."""

    name: str
    url: str
    size: int
    stamp: str


def find_files(paths: str | list[str], endings: tuple[str, ...]) -> list[File]:
    """Every file with one of `endings` at `paths`, sorted by name. Raises SourceError when there is none."""
    found: dict[str, File] = {}
    for path in [paths] if isinstance(paths, str) else paths:
        for file in _find(path, endings):
            other = found.setdefault(file.name, file)
            if other.url != file.url:
                raise SourceError(
                    f"source.path: {other.url} and {file.url} would both be shard {file.name}; give one path"
                )
    return [found[name] for name in sorted(found)]


def _find(path: str, endings: tuple[str, ...]) -> list[File]:
    folder, pattern = _split_glob(path)
    base = place(folder)
    try:
        info = base.info()
        if info.type == fs.FileType.NotFound:
            raise SourceError(_not_found(path))
        if info.type == fs.FileType.File and pattern is None:
            return [_file(base.path.rsplit("/", 1)[-1], base.url, info)]
        files = list(_below(base, pattern, endings))
    except OSError as e:
        raise SourceError(f"source.path: {path} cannot be listed: {e}") from None
    if not files:
        raise SourceError(_not_found(path))
    return files


def _below(base: Place, pattern: str | None, endings: tuple[str, ...]) -> Iterable[File]:
    wanted = re.compile(_translate(pattern)) if pattern else None
    for info in base.list():
        name = info.path[len(base.path) :].lstrip("/")
        hidden = any(part.startswith((".", "_")) for part in name.split("/"))
        if info.type != fs.FileType.File or hidden:
            continue
        if wanted.fullmatch(name) if wanted else name.endswith(endings):
            yield _file(name, posixpath.join(base.url, name), info)


def _file(name: str, url: str, info: fs.FileInfo) -> File:
    return File(name, url, info.size, str(info.mtime_ns))


def _split_glob(path: str) -> tuple[str, str | None]:
    """`data/*/x.parquet` is the folder `data` and the pattern `*/x.parquet`."""
    found = GLOB.search(path)
    if not found:
        return path, None
    cut = path.rfind("/", 0, found.start())
    return (path[:cut] or "/", path[cut + 1 :]) if cut >= 0 else (".", path)


def _translate(pattern: str) -> str:
    """A glob as a regular expression where `*` stays in one folder and `**` does not."""
    parts = []
    for piece in re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]*\])", pattern):
        parts.append({"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(piece))
        if parts[-1] is None:
            parts[-1] = piece if piece.startswith("[") else re.escape(piece)
    return "".join(parts)


def _not_found(path: str) -> str:
    where = f" (relative to {Path.cwd()})" if not scheme(path) and not path.startswith("/") else ""
    return f"source.path: nothing found at {path}{where}; name a file, a folder, a glob or a URL"
