"""One way to open local paths and URLs, and to write a file so that it is either whole or not there.

All is a `pyarrow.fs.FileSystem` and a path in it: local, s3://, gs://, abfs:// natively, hf:// and http(s):// through fsspec.
"""

import contextlib
import mmap
import os
import posixpath
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from pyarrow import fs

from levit_batch.errors import SourceError, UserError
from levit_batch.storage.stores import FSSPEC, NATIVE, bucket, remote
from levit_batch.storage.url import scheme, split_options

RACES = 100  # for a folder, lost in a row before something else is wrong


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
        bare, options = split_options(self.url)
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


def place(url: str) -> Place:
    """Where `url` is. Raises UserError for a scheme that nothing here opens."""
    kind = scheme(url)
    if kind in ("", "file"):
        path = os.path.abspath(os.path.expanduser(url.removeprefix("file://")))
        return Place(fs.LocalFileSystem(), path, path)
    if kind in NATIVE:
        filesystem, path = bucket(url)
        return Place(filesystem, path.rstrip("/"), url.rstrip("/"))
    if kind in FSSPEC:
        return Place(*remote(kind, url), url.rstrip("/") if kind == "hf" else url)
    raise UserError(f"{url}: the scheme {kind}:// is not known; use a local path, s3://, gs://, abfs://, hf:// or https://")


def require_inside(path: str, root: str) -> str:
    """`path` made absolute below `root`, symbolic links followed. Raises SourceError when it leaves `root`."""
    real_root = os.path.realpath(root)
    real = os.path.realpath(os.path.join(real_root, path))
    if os.path.commonpath([real, real_root]) != real_root:
        raise SourceError(f"{path}: leaves {root}")
    return real
