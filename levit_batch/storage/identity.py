"""Which content a file has: what `Shard.version` is made of, at planning and again when the file is opened to be read."""

import hashlib
import re
from dataclasses import dataclass, replace

import pyarrow as pa
from pyarrow import fs

from levit_batch.errors import LastingError
from levit_batch.storage.place import Place, place
from levit_batch.storage.retry import retry
from levit_batch.storage.url import scheme, shown

COMMIT = re.compile(r"^hf://(?:\w+/)?[^/@]+/[^/@]+@[0-9a-f]{40}/")  # what stands in a commit never changes


def version_of(*facts: object) -> str:
    """Eight hex digits for what identifies one content of a shard (size, etag, modification time)."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()[:8]


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


def open_file(url: str, version: str | None = None) -> tuple[pa.NativeFile, File]:
    """Open a file for reading by position, and say which content it has now.

    Raises OSError when it cannot be opened, LastingError when its content is another than `version`.
    """
    at = place(url)
    stream = retry(lambda: at.filesystem.open_input_file(at.path))
    if version is not None and COMMIT.match(url):
        return stream, File("", url, stream.size(), "")
    file = File(shown(url).rsplit("/", 1)[-1], url, stream.size(), stamp_of(at, stream))
    if version is not None and file.version != version:
        stream.close()
        raise LastingError(f"{shown(url)} changed since the job was planned; run again to plan its new content")
    return stream, file


def open_listed(listed: File) -> tuple[pa.NativeFile, File]:
    """Open a file that was just listed; with the stamp that `open_file` will find."""
    if not _tells_when_opened(listed.url):
        at = place(listed.url)
        return retry(lambda: at.filesystem.open_input_file(at.path)), listed
    stream, file = open_file(listed.url)
    return stream, replace(file, name=listed.name)


def identified(listed: File) -> File:
    """A listed file with the stamp that `open_file` will find."""
    if not _tells_when_opened(listed.url):
        return listed
    stream, file = open_listed(listed)
    stream.close()
    return file


def _tells_when_opened(url: str) -> bool:
    """Whether a listing lacks what identifies a file: an object store tells the etag of an opened file only."""
    return scheme(url) not in ("", "file", "hf", "http", "https")


def stamp_of(at: Place, stream: pa.NativeFile | None = None, info: fs.FileInfo | None = None) -> str:
    """What changes when the content does: the store's etag where one is to be had for free, else the modification time.

    An object store tells the etag of an opened `stream`; the Hub tells a file's hash.
    """
    kind = scheme(at.url)
    if kind == "hf":
        return hub_facts(at.filesystem.handler.fs.info(at.path))[1]
    if kind in ("http", "https"):
        facts = retry(lambda: at.filesystem.handler.fs.info(at.path))
        return str(facts.get("ETag") or facts.get("Last-Modified"))
    if stream is not None and not at.local:
        etag = (stream.metadata() or {}).get("ETag")
        if etag:
            return etag.decode() if isinstance(etag, bytes) else etag
    return str((info or at.info()).mtime_ns)


def hub_listing(base: Place) -> dict[str, tuple[int, str]]:
    """Size and hash of every file below a folder of the Hub, by its path from there, sorted."""
    filesystem = base.filesystem.handler.fs
    filesystem.invalidate_cache()
    files = filesystem.find(base.path, detail=True)
    return {path[len(base.path) :].lstrip("/"): hub_facts(files[path]) for path in sorted(files)}


def hub_facts(facts: dict) -> tuple[int, str]:
    """Size and hash of a file of the Hub, from its entry in a listing; a bucket has neither LFS nor Git."""
    lfs = facts.get("lfs")
    return facts["size"], lfs.sha256 if lfs else facts.get("blob_id") or facts["xet_hash"]
