"""File, folder, glob or URL to a sorted list of files with their identity."""

import posixpath
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from pyarrow import fs

from levit_batch.errors import SourceError
from levit_batch.retry import retry
from levit_batch.sources.identity import THREADS, File, hub_listing, stamp_of
from levit_batch.storage import Place, place, scheme, shown

GLOB = re.compile(r"[*?\[]")
BRACES = re.compile(r"\{(?:(?P<first>\d+)\.\.(?P<last>\d+)|(?P<choices>[^{}]*,[^{}]*))\}")


def find_files(paths: str | list[str], endings: tuple[str, ...]) -> list[File]:
    """Every file with one of `endings` at `paths`, sorted by name. Raises SourceError when there is none.

    `{000..123}` and `{a,b}` stand for several paths. Names are relative to the folder, to the fixed part of a glob, or,
    where several places hold files of one name, to the folder that all places share.
    """
    paths = [one for path in ([paths] if isinstance(paths, str) else paths) for one in expand_braces(path)]
    with ThreadPoolExecutor(THREADS) as pool:
        lists = list(pool.map(lambda path: list(_find(path, endings)), paths))
    found: dict[str, File] = {}
    for file in _named_apart(lists):
        other = found.setdefault(file.name, file)
        if other.url != file.url:
            raise SourceError(
                f"source.path: {shown(other.url)} and {shown(file.url)} would both be shard {file.name}; give one folder"
            )
    return [found[name] for name in sorted(found)]


def expand_braces(path: str) -> list[str]:
    """`x-{08..10}.{tar,tgz}` as the paths it stands for, in order; the width of the first number is kept."""
    found = BRACES.search(path)
    if not found:
        return [path]
    if found["first"] is not None:
        first, last, width = int(found["first"]), int(found["last"]), len(found["first"])
        step = 1 if last >= first else -1
        choices = [str(i).zfill(width) for i in range(first, last + step, step)]
    else:
        choices = found["choices"].split(",")
    return [path[: found.start()] + choice + rest for choice in choices for rest in expand_braces(path[found.end() :])]


def _named_apart(lists: list[list[File]]) -> Iterator[File]:
    """The files; where several places hold files of the same name, named from the folder that all places share."""
    flat = [file for files in lists for file in files]
    if len({file.name for file in flat}) == len({file.url for file in flat}):
        return iter(flat)
    common = posixpath.commonpath([shown(file.url) for file in flat])
    return (replace(file, name=shown(file.url)[len(common) :].lstrip("/") or file.name) for file in flat)


def _find(path: str, endings: tuple[str, ...]) -> Iterable[File]:
    folder, pattern = _split_glob(path)
    base = place(folder)
    if scheme(folder) == "hf":
        base.filesystem.handler.fs.invalidate_cache()
    try:
        info = retry(base.info)
        if info.type == fs.FileType.NotFound:
            raise SourceError(_not_found(path))
        if info.type == fs.FileType.File and pattern is None:
            return [File(shown(base.url).rsplit("/", 1)[-1], base.url, info.size, stamp_of(base, info=info))]
        files = list(_below(base, pattern, endings))
    except OSError as e:
        raise SourceError(f"source.path: {shown(path)} cannot be listed: {e}") from None
    if not files:
        what = "matches" if pattern else f"ends with {' or '.join(endings)}"
        raise SourceError(f"{_not_found(path)} (the folder is there, but nothing in it {what})")
    return files


def _below(base: Place, pattern: str | None, endings: tuple[str, ...]) -> Iterator[File]:
    wanted = re.compile(_translate(pattern)) if pattern else None
    for file in _hub(base) if scheme(base.url) == "hf" else _listed(base):
        hidden = any(part.startswith((".", "_")) for part in file.name.split("/"))
        if not hidden and (wanted.fullmatch(file.name) if wanted else file.name.lower().endswith(endings)):
            yield file


def _listed(base: Place) -> Iterator[File]:
    for info in retry(base.list):
        if info.type == fs.FileType.File:
            name = info.path[len(base.path) :].lstrip("/")
            yield File(name, base.join(name).url, info.size, str(info.mtime_ns))


def _hub(base: Place) -> Iterator[File]:
    for name, (size, stamp) in hub_listing(base).items():
        yield File(name, base.join(name).url, size, stamp)


def _split_glob(path: str) -> tuple[str, str | None]:
    """`data/*/x.parquet` is the folder `data` and the pattern `*/x.parquet`."""
    found = GLOB.search(path)
    if not found or scheme(path) in ("http", "https"):
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
    return f"source.path: nothing found at {shown(path)}{where}; name a file, a folder, a glob or a URL"
