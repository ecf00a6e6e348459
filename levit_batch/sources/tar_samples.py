"""A tar as samples: consecutive members that share a key, `train/0001.jpg` and `train/0001.json` being one sample."""

import io
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

NAME = re.compile(r"^((?:.*/)?[^./][^./]*)\.([^/]+)$")  # key, then everything after the first dot of the file's name
MOST_BYTES = 1 << 30  # of one member; a larger one is not read


@dataclass
class Sample:
    """One row: its key and its members' contents by what follows the key, in lower case.

    error: why the tar could not be read any further; nothing comes after such a sample.
    """

    key: str
    fields: dict[str, bytes | None] = field(default_factory=dict)  # None: not asked for
    names: dict[str, str] = field(default_factory=dict)  # the members' own names
    error: str | None = None


class Damaged(Exception):
    pass


class StrictInfo(tarfile.TarInfo):
    """A header that says so when it is damaged, where `tarfile` takes it for the end of the archive."""

    @classmethod
    def frombuf(cls, buf, encoding, errors):
        try:
            return super().frombuf(buf, encoding, errors)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.HeaderError as e:
            raise Damaged("it ends without its end mark" if not buf else str(e)) from None


def samples(stream: io.BufferedIOBase, wanted: Callable[[str], bool]) -> Iterator[Sample]:
    """The samples of the tar in `stream`, in order. Nothing is ever written to a disk, so a member's name can do no harm.

    wanted: whether a field's content is needed. Damage ends the tar with one sample that has an `error`.
    """
    current: Sample | None = None
    try:
        with tarfile.open(fileobj=stream, mode=_mode(stream), tarinfo=StrictInfo) as tar:
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
                if wanted(name) and member.size <= MOST_BYTES:
                    current.fields[name] = _content(tar, member)
    except (Damaged, tarfile.TarError, EOFError) as e:
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
        raise Damaged(f"incomplete member {member.name}: {e}") from None
    if len(data) != member.size:
        raise Damaged(f"incomplete member {member.name}: {len(data)} of {member.size} bytes")
    return data


def split_name(name: str) -> tuple[str | None, str]:
    """Key and field of a member: `a/1.seg.png` is field `seg.png` of sample `a/1`."""
    found = NAME.match(name.removeprefix("./"))
    return (found[1], found[2].lower()) if found else (None, "")


def _mode(stream: io.BufferedIOBase) -> str:
    """Plain tars are read by seeking over what is not needed, compressed ones as a stream."""
    compressed = stream.peek(6)[:6].startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ"))
    return "r|*" if compressed else "r:"
