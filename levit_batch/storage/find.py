"""File, folder, glob or URL to a list of files with their names and identity.

A file's name is its path below the *base*: the folder that all configured places share. It depends on the file and on
`source.path` alone, never on what else lies there. Each file is taken once, whatever leads to it: a folder that two places
name, a link beside its target. On a local disk it then has the name that no link leads to, else the one with the shortest way.
"""

import os
import re
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from fsspec.utils import glob_translate
from pyarrow import fs

from levit_batch.errors import SourceError
from levit_batch.storage.identity import File, hub_listing, stamp_of
from levit_batch.storage.place import Place, place
from levit_batch.storage.retry import retry
from levit_batch.storage.url import printable, scheme, shown

THREADS = 16
GLOB = re.compile(r"[*?\[]")
BRACES = re.compile(r"\{(?:(?P<first>\d+)\.\.(?P<last>\d+)|(?P<choices>[^{}]*,[^{}]*))\}")


@dataclass(frozen=True)
class Listed:
    """One configured place: a file, a folder, or the fixed folder of a glob and its `pattern`; `written`: as it is given."""

    url: str
    pattern: str | None
    written: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class Found(File):
    """real: on a local disk the file itself where links lead to it, else None."""

    real: str | None = None


def find_files(paths: str | list[str], endings: tuple[str, ...], leave_out: str | None = None) -> list[File]:
    """Every file with one of `endings` at `paths`, sorted by name. Raises SourceError when there is none.

    `{000..123}` and `{a,b}` stand for several paths; a path that is there as it is written is no pattern. Hidden files and
    folders (`.x`, `_x`) below a folder are left out, and so is what lies below `leave_out`.
    """
    places = configured(paths)
    with ThreadPoolExecutor(THREADS) as pool:
        lists = list(pool.map(lambda one: _find(one, endings, leave_out), places))
    base, named = base_parts(places), {}
    for file in _once(file for files in lists for file in files):
        name = "/".join(_parts(file.url)[len(base) :]) or file.name
        other = named.setdefault(name, replace(file, name=name))
        if other.url != file.url:
            raise SourceError(
                f"source.path: {shown(other.url)} and {shown(file.url)} would both be shard {name}; give one folder"
            )
    return [named[name] for name in sorted(named)]


def configured(paths: str | list[str]) -> list[Listed]:
    """The places that `paths` name: absolute, each once, in the order of their addresses."""
    places = {one for path in ([paths] if isinstance(paths, str) else paths) for one in _places(path)}
    return sorted(places, key=lambda one: (one.url, one.pattern or ""))


def base_of(paths: str | list[str]) -> str:
    """The folder against which shards are named, as an absolute path or URL."""
    kind, *rest = base_parts(configured(paths)) or [""]
    return "/" + "/".join(rest) if kind == "file" else f"{kind}://" + "/".join(rest) if kind else ""


def base_parts(places: list[Listed]) -> list[str]:
    """The parts of the folder that all places share; empty when they are on different stores."""
    split = [_parts(one.url) for one in places]
    if len(places) == 1 and places[0].pattern is None and _is_file(places[0].url):
        return split[0][:-1]
    return os.path.commonprefix(split)  # of lists: part by part


def _places(path: str) -> Iterator[Listed]:
    path = path.removeprefix("file://") if scheme(path) in ("", "file") else path
    if not (GLOB.search(path) or BRACES.search(path)) or scheme(path) in ("http", "https") or _is_there(path):
        for one in expand_braces(path) if scheme(path) in ("http", "https") else [path]:
            yield Listed(_absolute(one), None, one)
        return
    for one in expand_braces(path):
        folder, pattern = _split_glob(one)
        yield Listed(_absolute(folder), pattern, one)


def _is_there(path: str) -> bool:
    """Whether a path with special characters in it is a file or folder called just so."""
    try:
        return place(path).exists()
    except OSError:
        return False


def _is_file(url: str) -> bool:
    return scheme(url) in ("http", "https") or place(url).info().type == fs.FileType.File


def _absolute(path: str) -> str:
    return path.rstrip("/") if scheme(path) else os.path.abspath(os.path.expanduser(path))


def _parts(url: str) -> list[str]:
    """A URL's store, bucket and path, or a local path behind "file": without credentials and query."""
    kind = scheme(url)
    if not kind:
        return ["file", *url.split("/")[1:]] if url != "/" else ["file"]
    return [kind, *shown(url).split("://", 1)[1].split("/")]


def expand_braces(path: str) -> list[str]:
    """`x-{08..10}.{tar,tgz}` as the paths it stands for, in order; the width of the first number is kept."""
    braces = BRACES.search(path)
    if not braces:
        return [path]
    if braces["first"] is not None:
        first, last, width = int(braces["first"]), int(braces["last"]), len(braces["first"])
        step = 1 if last >= first else -1
        choices = [str(i).zfill(width) for i in range(first, last + step, step)]
    else:
        choices = braces["choices"].split(",")
    return [path[: braces.start()] + choice + rest for choice in choices for rest in expand_braces(path[braces.end() :])]


def _once(files: Iterable[Found]) -> Iterator[Found]:
    """Each file once: by its address, and on a local disk by what it is behind all links."""
    distinct = {file.url: file for file in files}
    own = {file.url for file in distinct.values() if file.real is None or file.real == file.url}
    for url in sorted(distinct, key=lambda url: (url.count("/"), url)):
        file = distinct[url]
        if file.real is None or url == file.real:
            yield file
        elif file.real not in own:
            own.add(file.real)
            yield file


def _find(one: Listed, endings: tuple[str, ...], leave_out: str | None) -> list[Found]:
    base = place(one.url)
    if scheme(one.url) == "hf":
        base.filesystem.handler.fs.invalidate_cache()
    try:
        info = retry(base.info)
        if info.type == fs.FileType.NotFound:
            raise SourceError(_not_found(one))
        if info.type == fs.FileType.File and one.pattern is None:
            real = os.path.realpath(base.path) if base.local else None
            return [Found(base.url.rsplit("/", 1)[-1], base.url, info.size, stamp_of(base, info=info), real)]
        files = list(_below(base, one.pattern, endings, leave_out))
        ours = leave_out is not None and f"{base.url}/".startswith(leave_out.rstrip("/") + "/")
        hidden = ours and not files and any(_below(base, one.pattern, endings, None))
    except OSError as e:
        raise SourceError(f"source.path: {shown(one.url)} cannot be listed: {e}") from None
    if hidden:
        raise SourceError(
            f"source.path: all that is found at {shown(one.written)} lies in {shown(leave_out)}, which is output.path and is "
            "left out; use another output.path"
        )
    if not files:
        what = f"matches {one.pattern}" if one.pattern else f"ends with {' or '.join(endings)}"
        raise SourceError(f"{_not_found(one)} (the folder is there, but nothing in it {what})")
    return files


def _below(base: Place, pattern: str | None, endings: tuple[str, ...], leave_out: str | None) -> Iterator[Found]:
    try:
        wanted = re.compile(glob_translate(pattern)) if pattern else None
    except ValueError as e:
        raise SourceError(f"source.path: {shown(base.url)}/{pattern}: {e}") from None
    listed = _local(base.path, leave_out) if base.local else _remote(base)
    for file in listed:
        hidden = any(part.startswith((".", "_")) for part in file.name.split("/"))
        ours = leave_out is not None and file.url.startswith(leave_out.rstrip("/") + "/")
        if not hidden and not ours and (wanted.match(file.name) if wanted else file.name.lower().endswith(endings)):
            yield _printable(file)


def _printable(file: Found) -> Found:
    try:
        file.name.encode()
    except UnicodeEncodeError:
        name = printable(os.fsencode(file.url))
        raise SourceError(f"source.path: {name}: its name is not UTF-8; rename it, or leave it out") from None
    return file


def _remote(base: Place) -> Iterator[Found]:
    if scheme(base.url) == "hf":
        for name, (size, stamp) in hub_listing(base).items():
            yield Found(name, base.join(name).url, size, stamp)
        return
    for info in retry(base.list):
        if info.type == fs.FileType.File:
            name = info.path[len(base.path) :].lstrip("/")
            yield Found(name, base.join(name).url, info.size, str(info.mtime_ns))


def _local(root: str, leave_out: str | None) -> Iterator[Found]:
    """Files below `root`, through links to folders, too; never twice down the same folder of one path."""
    skip = os.path.realpath(leave_out) if leave_out and not scheme(leave_out) else None
    folders = [("", os.path.realpath(root), (os.path.realpath(root),))]  # name, what it is, what it lies in
    while folders:
        folder, real, above = folders.pop()
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                name = f"{folder}/{entry.name}" if folder else entry.name
                target = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
                if entry.name.startswith((".", "_")) or target == skip:
                    continue
                if entry.is_dir():
                    if target not in above:
                        folders.append((name, target, (*above, target)))
                    continue
                facts = entry.stat() if os.path.exists(entry.path) else entry.stat(follow_symlinks=False)
                if stat.S_ISREG(facts.st_mode) or stat.S_ISLNK(facts.st_mode):  # a dangling link fails where it is opened
                    url = os.path.join(root, name)
                    target = url if target == url else target  # one string for both: there may be a million files
                    yield Found(name, url, facts.st_size, str(facts.st_mtime_ns), target)


def _split_glob(path: str) -> tuple[str, str | None]:
    """`data/*/x.parquet` is the folder `data` and the pattern `*/x.parquet`."""
    special = GLOB.search(path)
    if not special:
        return path, None
    cut = path.rfind("/", 0, special.start())
    return (path[:cut] or "/", path[cut + 1 :]) if cut >= 0 else (".", path)


def _not_found(one: Listed) -> str:
    where = f" (relative to {Path.cwd()})" if not scheme(one.written) and not one.written.startswith(("/", "~")) else ""
    return f"source.path: nothing found at {shown(one.written)}{where}; name a file, a folder, a glob or a URL"
