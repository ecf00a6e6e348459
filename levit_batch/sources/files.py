"""File, folder, glob or URL to a sorted list of files with their identity."""

import posixpath
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from levit_batch.errors import SourceError
from levit_batch.plan import version_of
from levit_batch.retry import LastingError, retry
from levit_batch.storage import Place, place, scheme, shown

GLOB = re.compile(r"[*?\[]")
BRACES = re.compile(r"\{(?:(?P<first>\d+)\.\.(?P<last>\d+)|(?P<choices>[^{}]*,[^{}]*))\}")
THREADS = 16


@dataclass(frozen=True, slots=True)
class File:
    """name: path relative to what was asked for; stamp: what changes when the content does (etag or mtime)."""

    name: str
    url: str
    size: int
    stamp: str

    @property
    def version(self) -> str:
        return version_of(self.size, self.stamp)


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


def identified(files: list[File]) -> Iterator[File]:
    """The files with the stamps that `open_file` finds, which for an object store only an opened file tells."""

    def identify(file: File) -> File:
        if scheme(file.url) in ("", "file", "hf", "http", "https"):
            return file
        stream, opened = open_file(file.url)
        stream.close()
        return replace(opened, name=file.name)

    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(identify, files)


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
            return [_file(base, shown(base.url).rsplit("/", 1)[-1], info)]
        files = list(_below(base, pattern, endings))
    except OSError as e:
        raise SourceError(f"source.path: {shown(path)} cannot be listed: {e}") from None
    if not files:
        what = "matches" if pattern else f"ends with {' or '.join(endings)}"
        raise SourceError(f"{_not_found(path)} (the folder is there, but nothing in it {what})")
    return files


def _below(base: Place, pattern: str | None, endings: tuple[str, ...]) -> Iterator[File]:
    wanted = re.compile(_translate(pattern)) if pattern else None
    if scheme(base.url) == "hf":
        retry(
            lambda: base.filesystem.handler.fs.find(base.path)
        )  # one request a page fills its cache, not one a folder
    for info in retry(base.list):
        name = info.path[len(base.path) :].lstrip("/")
        hidden = any(part.startswith((".", "_")) for part in name.split("/"))
        if info.type != fs.FileType.File or hidden:
            continue
        if wanted.fullmatch(name) if wanted else name.lower().endswith(endings):
            yield _file(base.join(name), name, info)


def _file(at: Place, name: str, info: fs.FileInfo) -> File:
    return File(name, at.url, info.size, stamp_of(at, info=info))


def stamp_of(at: Place, stream: pa.NativeFile | None = None, info: fs.FileInfo | None = None) -> str:
    """What changes when the content does: the store's etag where one is to be had for free, else the modification time.

    An object store tells the etag of an opened `stream`; the Hub tells a file's hash.
    """
    if scheme(at.url) in ("hf", "http", "https"):
        facts = retry(lambda: at.filesystem.handler.fs.info(at.path))
        lfs = facts.get("lfs")
        return str(lfs.sha256 if lfs else facts.get("blob_id") or facts.get("ETag") or facts.get("Last-Modified"))
    if stream is not None and not at.local:
        etag = (stream.metadata() or {}).get(b"ETag") or (stream.metadata() or {}).get("ETag")
        if etag:
            return etag.decode() if isinstance(etag, bytes) else etag
    return str((info or at.info()).mtime_ns)


def open_file(url: str, version: str | None = None) -> tuple[pa.NativeFile, File]:
    """Open a file for reading by position, and say which content it has now.

    Raises OSError when it cannot be opened, LastingError when its content is another than `version`.
    """
    at = place(url)
    stream = retry(lambda: at.filesystem.open_input_file(at.path))
    file = File(shown(url).rsplit("/", 1)[-1], url, stream.size(), stamp_of(at, stream))
    if version is not None and file.version != version:
        stream.close()
        raise LastingError(f"{shown(url)} changed since the job was planned; run again to plan its new content")
    return stream, file


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
