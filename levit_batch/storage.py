"""One way to open local paths and URLs, and to write a file so that it is either whole or not there.

Everything is a `pyarrow.fs.FileSystem` and a path in it: local, s3:// and gs:// natively, hf:// and http(s):// through fsspec.
"""

import contextlib
import os
import posixpath
from dataclasses import dataclass
from urllib.parse import urlsplit

from pyarrow import fs

from levit_batch.errors import SourceError, UserError

NATIVE = {"s3", "gs", "gcs"}
FSSPEC = {"hf", "http", "https"}


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
        return Place(self.filesystem, posixpath.join(self.path, *parts), posixpath.join(self.url, *parts))

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

    def write_bytes(self, data: bytes | memoryview) -> None:
        """Write the file in one step: a temporary name then a rename locally, one PUT on an object store."""
        if self.local:
            return _write_local(self.path, data)
        # Closing an S3 stream after an exception would publish half a file: the bytes are complete before it opens.
        with self.filesystem.open_output_stream(self.path) as stream:
            stream.write(data)

    def delete(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.filesystem.delete_file(self.path)


def _write_local(path: str, data: bytes | memoryview) -> None:
    folder, name = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    # The leading dot and the ending keep readers away; the process id keeps two writers apart.
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def scheme(url: str) -> str:
    """The URL's scheme, or "" for a local path."""
    return urlsplit(url).scheme if "://" in url else ""


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
    raise UserError(f"{url}: the scheme {kind}:// is not known; use a local path, s3://, gs://, hf:// or https://")


def _native(url: str) -> tuple[fs.FileSystem, str]:
    try:
        return fs.FileSystem.from_uri(url)
    except (OSError, ValueError) as e:
        raise UserError(
            f"{url}: cannot be opened: {e}; check the address and the credentials in the environment"
        ) from e


def _fsspec(kind: str, url: str) -> Place:
    if kind == "hf":
        from huggingface_hub import HfFileSystem

        handler = fs.FSSpecHandler(HfFileSystem())
        return Place(fs.PyFileSystem(handler), url.removeprefix("hf://").rstrip("/"), url.rstrip("/"))
    import fsspec

    return Place(fs.PyFileSystem(fs.FSSpecHandler(fsspec.filesystem(kind))), url, url)


def require_inside(path: str, root: str) -> str:
    """`path` made absolute below `root`, symbolic links followed. Raises SourceError when it leaves `root`."""
    real_root = os.path.realpath(root)
    real = os.path.realpath(os.path.join(real_root, path))
    if os.path.commonpath([real, real_root]) != real_root:
        raise SourceError(f"{path}: leaves {root}")
    return real
