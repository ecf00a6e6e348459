"""A tree of files as a table of names, sizes and stamps: compact enough for millions of files."""

import contextlib
import os
import stat
from collections.abc import Iterator

import pyarrow as pa
from pyarrow import fs

from levit_batch.errors import SourceError
from levit_batch.storage.identity import hub_listing
from levit_batch.storage.place import Place
from levit_batch.storage.retry import retry
from levit_batch.storage.url import printable, scheme, shown

LISTING = pa.schema([("name", pa.large_string()), ("size", pa.int64()), ("stamp", pa.large_string())])
BATCH = 10_000

Entry = tuple[str, int, str]  # name below the root, bytes, what changes when the content does


def list_tree(root: Place, endings: tuple[str, ...], names: tuple[str, ...]) -> pa.Table:
    """Every file below `root` that ends with one of `endings` or is called one of `names`; folder by folder, sorted.

    Files and folders that start with a dot are left out, and symbolic links to folders are not followed.
    """
    entries = _local(root.path, "") if root.local else _remote(root)
    wanted = (e for e in entries if e[0].lower().endswith(endings) or e[0].rpartition("/")[2] in names)
    return listing_table(wanted)


def listing_table(entries: Iterator[Entry]) -> pa.Table:
    batches, part = [], []
    for entry in entries:
        part.append(entry)
        if len(part) == BATCH:
            batches.append(_batch(part))
            part = []
    return pa.Table.from_batches([*batches, _batch(part)], LISTING)


def _batch(entries: list[Entry]) -> pa.RecordBatch:
    columns = list(zip(*entries, strict=True)) or [[], [], []]
    return pa.record_batch([pa.array(c, t) for c, t in zip(columns, LISTING.types, strict=True)], schema=LISTING)


def _local(folder: str | bytes, prefix: str) -> Iterator[Entry]:
    """One folder's names at a time: no more is held than the largest folder."""
    for name, encoded in sorted(_names(os.listdir(os.fsencode(folder))).items()):
        if name.startswith("."):
            continue
        path = os.path.join(os.fsencode(folder), encoded)
        if (facts := _facts(path)) is None:
            continue
        if not stat.S_ISDIR(facts.st_mode):
            yield prefix + name, facts.st_size, str(facts.st_mtime_ns)
        elif not os.path.islink(path):
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile
                yield from _local(path, f"{prefix}{name}/")


def _names(encoded: list[bytes]) -> dict[str, bytes]:
    """Each name as text; one that is not UTF-8 is shown as no other name of its folder is."""
    names, odd = {}, []
    for name in encoded:
        try:
            names[name.decode()] = name
        except UnicodeDecodeError:
            odd.append(name)
    for name in sorted(odd):
        text = printable(name)
        while text in names:
            text = f"\\{text}"
        names[text] = name
    return names


def _facts(path: bytes) -> os.stat_result | None:
    """Of what a link leads to, or of a link that leads nowhere (reading it says so); None for what is gone meanwhile."""
    for look in (os.stat, os.lstat):
        with contextlib.suppress(OSError):
            return look(path)
    return None


def _remote(root: Place) -> Iterator[Entry]:
    if scheme(root.url) in ("http", "https"):
        raise SourceError(
            f"source.path: {shown(root.url)}: a web server cannot be listed; use a store, or a list in Parquet"
        )
    if scheme(root.url) == "hf":
        yield from _visible([(name, *facts) for name, facts in hub_listing(root).items()])
        return
    entries = [
        (info.path[len(root.path) :].lstrip("/"), info.size, str(info.mtime_ns))
        for info in retry(root.list)
        if info.type == fs.FileType.File
    ]
    yield from _visible(entries)


def _visible(entries: list[Entry]) -> Iterator[Entry]:
    entries.sort(key=lambda entry: entry[0].split("/"))
    return (entry for entry in entries if not any(part.startswith(".") for part in entry[0].split("/")))
