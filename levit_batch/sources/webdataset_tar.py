"""A tar as samples: consecutive members that share a key, `train/0001.jpg` and `train/0001.json` being one sample."""

import bz2
import io
import lzma
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

NAME = re.compile(r"(?s)^((?:.*/)?[^./][^./]*)\.([^/]+)$")  # key, then everything after the first dot of the file's name
MOST_UNPACKED = 48 << 20  # bytes at once: a whole block of bzip2, whose check stands at its end
MOST_HEADER = 1 << 20  # bytes of a long name or of other facts about a member
HEADERS = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


@dataclass
class Sample:
    """One row: its key and its members' contents by what follows the key, in lower case.

    error: why the tar could not be read any further; nothing comes after such a sample.
    """

    key: str
    fields: dict[str, bytes | None] = field(default_factory=dict)  # None: not asked for, or too large
    names: dict[str, str] = field(default_factory=dict)  # the members' own names
    error: str | None = None

    def size(self) -> int:
        return sum(len(content) for content in self.fields.values() if content is not None)


class _Damaged(Exception):
    pass


class Unpacked:
    """A bzip2 or xz file, decompressed a bounded piece at a time; `tarfile` itself makes gigabytes of 10 kB if they say so."""

    def __init__(self, stream: io.BufferedIOBase, decompressor: bz2.BZ2Decompressor | lzma.LZMADecompressor):
        self.stream, self.decompressor = stream, decompressor
        self.ready = io.BytesIO()

    def read(self, size: int) -> bytes:
        data = self.ready.read(size)
        while len(data) < size and not self.decompressor.eof:
            piece = self.stream.read(tarfile.RECORDSIZE) if self.decompressor.needs_input else b""
            if not piece and self.decompressor.needs_input:
                break
            try:
                self.ready = io.BytesIO(self.decompressor.decompress(piece, MOST_UNPACKED))
            except (OSError, lzma.LZMAError):
                raise tarfile.ReadError("invalid compressed data") from None
            data += self.ready.read(size - len(data))
        return data


class StrictInfo(tarfile.TarInfo):
    """A header that says so when it is damaged, where `tarfile` takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        try:
            info = super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as e:
            raise _Damaged("it ends without its end mark" if not buf else str(e)) from None
        if info.type in HEADERS and info.size > MOST_HEADER:  # `tarfile` would read it whole
            raise _Damaged(f"a header of {info.size} bytes")
        return info


def samples(stream: io.BufferedIOBase, wanted: Callable[[str], bool], most: int) -> Iterator[Sample]:
    """The samples of the tar in `stream`, in order. Nothing is ever written to a disk, so a member's name can do no harm.

    wanted: whether a field's content is needed. most: bytes of a sample; contents beyond are not read.
    Damage ends the tar with one sample that has an `error`.
    """
    current: Sample | None = None
    try:
        text = {"encoding": "utf-8", "errors": "backslashreplace"}  # a member's name is always one that can be printed
        plain, mode = _unpacked(stream)
        with tarfile.open(fileobj=plain, mode=mode, tarinfo=StrictInfo, **text) as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # it would keep all of them
                key, name = split_name(member.name)
                if not member.isreg() or key is None:
                    continue
                if current is None or current.key != key or name in current.fields:
                    if current is not None:
                        yield current
                    current = Sample(key)
                current.fields[name], current.names[name] = None, member.name
                if wanted(name) and member.size <= most - current.size():
                    current.fields[name] = _content(tar, member)
    except (_Damaged, tarfile.TarError, EOFError) as e:
        if current is not None and current.fields and not str(e).startswith("incomplete"):
            yield current
            current = None
        lost = current or Sample("")
        yield Sample(lost.key, error=f"unreadable: the tar is damaged from here on: {e}")
        return
    if current is not None:
        yield current


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    try:
        data = tar.extractfile(member).read()
    except tarfile.ReadError as e:
        raise _Damaged(f"incomplete member {member.name}: {e}") from None
    if len(data) != member.size:
        raise _Damaged(f"incomplete member {member.name}: {len(data)} of {member.size} bytes")
    return data


def split_name(name: str) -> tuple[str | None, str]:
    """Key and field of a member: `a/1.seg.png` is field `seg.png` of sample `a/1`."""
    parts = NAME.match(name.removeprefix("./"))
    return (parts[1], parts[2].lower()) if parts else (None, "")


def _unpacked(stream: io.BufferedIOBase) -> tuple[io.BufferedIOBase | Unpacked, str]:
    """The tar, and how it is read: a plain one by seeking over what is not needed."""
    start = stream.peek(6)[:6]
    if start.startswith(b"\x1f\x8b"):
        return stream, "r|gz"
    if start.startswith(b"BZh"):
        return Unpacked(stream, bz2.BZ2Decompressor()), "r|"
    if start.startswith(b"\xfd7zXZ"):
        return Unpacked(stream, lzma.LZMADecompressor(memlimit=4 * MOST_UNPACKED)), "r|"
    return stream, "r:"
