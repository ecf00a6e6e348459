"""One way to open local paths and URLs, and to write a file so that it is either whole or not there.

All is a `pyarrow.fs.FileSystem` and a path in it: local, s3://, gs://, abfs:// natively, hf:// and http(s):// through fsspec.
"""

import contextlib
import functools
import mmap
import os
import posixpath
import re
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import fs

from levit_batch.errors import SourceError, UserError
from levit_batch.storage.hub import patient_hub
from levit_batch.storage.ranges import http_file, hub_file
from levit_batch.storage.redact import user_length
from levit_batch.storage.retry import retry

RACES = 100  # for a folder, lost in a row before something else is wrong
NATIVE = {"s3", "gs", "gcs", "abfs", "abfss"}
FSSPEC = {"hf", "http", "https"}
PINNED = re.compile(
    r"(?:(?P<kind>datasets|spaces|models)/)?(?P<repo>[^/@]+/[^/@]+)@(?P<commit>[0-9a-f]{40})/(?P<path>.+)"
)
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
# For S3: without it each file, however small, goes up in parts: three requests, and parts that stay when a process is killed.
ONE_PUT = "allow_delayed_open=true"
OPTIONS = re.compile(
    r"\?(region|endpoint_override|scheme|anonymous|retry_limit_seconds|project_id|credential_kind|enable_tls|tenant_id|client_id|"
    r"blob_storage_authority|dfs_storage_authority)="
)


@dataclass(frozen=True)
class Place:
    """A folder or file: a file system and a path in it (no trailing slash). Pickles."""

    filesystem: fs.FileSystem
    path: str
    url: str

    @property
    def local(self) -> bool:
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def join(self, *parts: str) -> "Place":
        bare, options = _split_options(self.url)
        return Place(self.filesystem, posixpath.join(self.path, *parts), posixpath.join(bare, *parts) + options)

    def info(self) -> fs.FileInfo:
        return self.filesystem.get_file_info(self.path)

    def exists(self) -> bool:
        return self.info().type != fs.FileType.NotFound

    def read_bytes(self) -> bytes:
        with self.filesystem.open_input_stream(self.path) as stream:
            return stream.read()

    def list(self, recursive: bool = True) -> list[fs.FileInfo]:
        """Files and folders below; empty when the folder does not exist."""
        return self.filesystem.get_file_info(fs.FileSelector(self.path, allow_not_found=True, recursive=recursive))

    def write_bytes(self, data: bytes | memoryview, lasting: bool = True) -> None:
        """Write the file in one step: a temporary name then a rename locally, on an object store one PUT (more than 10 MB: parts,
        which are one file when the last has arrived).

        A file that is not `lasting` may be lost, or empty, when the machine (not the process) dies within seconds.
        """
        if self.local:
            return _write_local(self.path, lambda file: file.write(data), lasting)
        # Closing an S3 stream after an exception would publish half a file: the bytes are complete before it opens.
        with self.filesystem.open_output_stream(self.path) as stream:
            stream.write(data)

    def write_with(self, write: Callable[[BinaryIO], Any]) -> None:
        """The same for a file that `write` writes piece by piece, as it may be too large for memory."""
        if self.local:
            return _write_local(self.path, write, lasting=True)
        with tempfile.TemporaryFile() as file:
            write(file)
            file.flush()
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data, memoryview(data) as view:
                self.write_bytes(view)

    def delete(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path)


def _write_local(path: str, write: Callable[[BinaryIO], Any], lasting: bool) -> None:
    folder, name = os.path.split(path)
    # The leading dot and the ending keep readers away; process ids are the same in two containers, so chance helps.
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with _create(temporary) as file:
            write(file)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _create(path: str) -> BinaryIO:
    """Open `path` for writing; another process may remove its folder, just emptied, while this one makes it."""
    for _ in range(RACES):
        with contextlib.suppress(FileNotFoundError, FileExistsError):
            return _open_in_folder(path)
    return _open_in_folder(path)  # what is wrong is not the race


def _open_in_folder(path: str) -> BinaryIO:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return open(path, "wb")


def scheme(url: str) -> str:
    """The URL's scheme, or "" for a local path."""
    kind, found, _ = url.partition("://")
    return kind.lower() if found and SCHEME.fullmatch(kind) else ""


def place(url: str) -> Place:
    """Where `url` is. Raises UserError for a scheme that nothing here opens."""
    kind = scheme(url)
    if kind in ("", "file"):
        path = os.path.abspath(os.path.expanduser(url.removeprefix("file://")))
        return Place(fs.LocalFileSystem(), path, path)
    if kind in NATIVE:
        filesystem, path = _native(url)
        return Place(filesystem, path.rstrip("/"), url.rstrip("/"))
    if kind in FSSPEC:
        return _fsspec(kind, url)
    raise UserError(f"{url}: the scheme {kind}:// is not known; use a local path, s3://, gs://, abfs://, hf:// or https://")


def _native(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of a bucket, made once a process, and a path in it, taken as it is written."""
    bare, options = _split_options(url)
    kind, rest = bare.split("://", 1)
    bucket, _, path = rest.partition("/")
    filesystem, root = _bucket(f"{kind}://{bucket}{options}")
    return filesystem, "/".join(filter(None, (root.rstrip("/"), path)))


def _split_options(url: str) -> tuple[str, str]:
    """A bucket's address and its `?region=...`; a question mark that is part of a name stays there."""
    options = OPTIONS.search(url)
    return (url[: options.start()], url[options.start() :]) if options else (url, "")


@functools.lru_cache(64)
def _bucket(url: str) -> tuple[fs.FileSystem, str]:
    """With its root: the bucket's name, or Azure's container, which may stand in the path (then "")."""
    try:
        return fs.FileSystem.from_uri(url + ("&" if "?" in url else "?") + ONE_PUT if scheme(url) == "s3" else url)
    except (OSError, ValueError) as e:
        raise UserError(
            f"{shown(url)}: cannot be opened: {e}; check the address and the credentials in the environment"
        ) from e


def _fsspec(kind: str, url: str) -> Place:
    if kind == "hf":
        filesystem = _hub(os.environ.get("HF_ENDPOINT"))
        return Place(fs.PyFileSystem(Hub(filesystem)), url.removeprefix("hf://").rstrip("/"), url.rstrip("/"))
    import fsspec

    return Place(fs.PyFileSystem(Ranged(fsspec.filesystem(kind))), url, url)


@functools.lru_cache(8)
def _hub(endpoint: str | None):
    """One for all threads: each instance asks about every repository and folder once."""
    from huggingface_hub import HfFileSystem

    patient_hub()
    return HfFileSystem(endpoint=endpoint or None)


class Ranged(fs.FSSpecHandler):
    """An fsspec file system whose files are read by exact ranges, and whose failures are tried again."""

    def get_file_info(self, paths):
        return retry(lambda: super(Ranged, self).get_file_info(paths))

    def get_file_info_selector(self, selector):
        return retry(lambda: super(Ranged, self).get_file_info_selector(selector))

    def open_input_file(self, path):
        return pa.PythonFile(http_file(self.fs, path), mode="r")

    def open_input_stream(self, path):
        return self.open_input_file(path)


class Hub(Ranged):
    """Repositories of the Hugging Face Hub."""

    def open_input_file(self, path):
        return pa.PythonFile(hub_file(self._url(path)), mode="r")

    def _url(self, path: str) -> str:
        """Where the file is downloaded from. At a commit nothing needs to be asked: a replica opens thousands of files."""
        pinned = PINNED.fullmatch(path)
        if not pinned:
            return self.fs.url(path)
        from huggingface_hub import hf_hub_url

        kind = (pinned["kind"] or "models").removesuffix("s")
        where = {"repo_type": kind, "revision": pinned["commit"], "endpoint": self.fs.endpoint}
        return hf_hub_url(pinned["repo"], pinned["path"], **where)


def shown(url: str) -> str:
    """A URL as it may be printed or recorded: no password, no query (which may be a signature)."""
    kind = scheme(url)
    if not kind:
        return url
    rest = url.split("://", 1)[1]
    rest = rest[user_length(kind, rest) :]
    bare = rest.partition("?")[0].partition("#")[0] if kind in ("http", "https") else _split_options(rest)[0]
    return f"{kind}://{bare}"


def require_inside(path: str, root: str) -> str:
    """`path` made absolute below `root`, symbolic links followed. Raises SourceError when it leaves `root`."""
    real_root = os.path.realpath(root)
    real = os.path.realpath(os.path.join(real_root, path))
    if os.path.commonpath([real, real_root]) != real_root:
        raise SourceError(f"{path}: leaves {root}")
    return real


def printable(name: bytes) -> str:
    r"""A file's name as text, `\xff` for a byte that is not UTF-8. No file is found by such a name."""
    return name.decode("utf-8", "backslashreplace")
