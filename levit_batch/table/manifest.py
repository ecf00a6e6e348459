"""`files.parquet`: a row a chunk file, and in its metadata what all their rows say in sum. One snapshot of the table: whoever
reads the files that it names reads each row once, on every store, whatever is replaced meanwhile.

It is written whole and replaced in one step. The files stay the truth: what it lacks is found by looking (`live.py`), and a
manifest that is lost is made again from their footers (`books.py`).
"""

import functools
import hashlib
import io
import json
from bisect import bisect, bisect_left
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from levit_batch.errors import OutputError
from levit_batch.table.output import CHUNK_FILE, DATA, FOLDER, MANIFEST, STAGING, Output
from levit_batch.table.stats import NONE, Stats, add_stats

SUMS, PUBLISHING, LOOKED = b"levit_batch.sums", b"levit_batch.publishing", b"levit_batch.looked"
SCHEMA = pa.schema(
    [
        ("path", pa.string()),  # below the output: data/<shard's folder>/<file>; while a shard is replaced, also _staging/...
        ("shard", pa.string()),
        ("first", pa.int64()),  # row in the shard, and the last one, which the file holds too
        ("last", pa.int64()),
        ("version", pa.string()),
        ("rows", pa.int64()),
        ("bytes", pa.int64()),
        ("run", pa.string()),  # runs/<run>.json
        ("errors", pa.int64()),  # rows with an error
        ("label_min", pa.int64()),
        ("label_max", pa.int64()),
        ("score_min", pa.float32()),
        ("score_max", pa.float32()),
    ]
)
ROW_GROUP_ROWS = 65_536
# What a manifest may name: one that somebody else made leads nowhere else.
NAMED = f"^(?:{DATA}|{STAGING})/{FOLDER.pattern}/{CHUNK_FILE.pattern}$"
BATCH, SUMS_BATCH = 4096, 256  # entries, and sums, that are put together in one go
PIECES = 20_000  # slices that a table consists of at most; looking for where one begins takes 50 us

_last: dict[bytes, "Manifest | None"] = {}  # the one read or written last, by a hash of the stored bytes: read once a run


@dataclass(frozen=True)
class Manifest:
    """files: `SCHEMA`, sorted by path. sums: of all rows; None where they are not known. read_anew: paths of the files that
    no book had when it was made; not stored. publishing: the folders that a run was about to replace when it was written:
    their files are named where they are staged, and others may still be seen in the folder. looked: when the folder was
    looked at (ns): what changed later, by a run beside, is not in it.
    """

    files: pa.Table
    sums: Stats | None
    read_anew: tuple[str, ...] = ()
    publishing: tuple[str, ...] = ()
    looked: int = 0

    def settled(self) -> "Manifest":
        """The same files where they belong."""
        staged = pc.starts_with(self.files["path"], f"{STAGING}/")
        moved = self.files.filter(staged)
        moved = moved.set_column(0, "path", pc.replace_substring_regex(moved["path"], f"^{STAGING}/", f"{DATA}/"))
        read_anew = tuple(path.replace(f"{STAGING}/", f"{DATA}/", 1) for path in self.read_anew)
        return Manifest(merged(self.files, ~staged.to_numpy(), moved), self.sums, read_anew, looked=self.looked)

    @functools.cached_property
    def slices(self) -> dict[str, tuple[int, int]]:
        """The rows of `files` that are of each folder, first to stop."""
        folders, codes = coded(pc.replace_substring_regex(self.files["path"], "^[^/]*/([^/]*)/.*$", r"\1"))
        edges = [0, *(np.flatnonzero(codes[1:] != codes[:-1]) + 1).tolist(), len(codes)]
        return {folders[codes[a]]: (a, b) for a, b in zip(edges, edges[1:], strict=False) if a < b}


def coded(column: pa.ChunkedArray) -> tuple[list[str], np.ndarray]:
    """The distinct values of a column, and the number [N] of each row's among them; -1 for null."""
    chunks = column.dictionary_encode().chunks
    numbers = [chunk.indices.fill_null(-1).to_numpy() for chunk in chunks]
    return chunks[-1].dictionary.to_pylist() if chunks else [], np.concatenate([np.zeros(0, np.int32), *numbers])


def read_manifest(output: Output) -> Manifest | None:
    """The manifest of `output`; None where there is none, or none that can be read: it is made again."""
    try:
        data = output.place.join(MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise OutputError(f"{output.place.join(MANIFEST).url}: cannot be read: {e}") from None
    if (key := _key(data)) not in _last:
        _remember(key, _manifest_of(data))
    return _last[key]


def _key(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _remember(key: bytes, manifest: Manifest | None) -> None:
    _last.clear()
    _last[key] = manifest


def _manifest_of(data: bytes) -> Manifest | None:
    try:
        # Not pq.read_table: it takes 100 MB more for a million files, of which it keeps half.
        with pq.ParquetFile(pa.BufferReader(data), pre_buffer=False) as file:
            table = file.read(use_threads=False)
        pa.default_memory_pool().release_unused()
        sums = json.loads((table.schema.metadata or {}).get(SUMS, b"null"))
        files = table.select(SCHEMA.names).cast(SCHEMA).replace_schema_metadata(None)
        whole = sums is None or sums.keys() >= NONE.keys()
        publishing = json.loads((table.schema.metadata or {}).get(PUBLISHING, b"[]"))
        looked = int((table.schema.metadata or {}).get(LOOKED, b"0"))
        if not pc.all(pc.match_substring_regex(files["path"], NAMED), min_count=0).as_py() or not all(
            map(FOLDER.fullmatch, publishing)
        ):
            return None
        return Manifest(files, sums if whole else None, publishing=tuple(publishing), looked=looked)
    except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError, ValueError, AttributeError, OSError):
        return None


def write_manifest(output: Output, manifest: Manifest) -> None:
    sink = io.BytesIO()
    sums = json.dumps(manifest.sums, separators=(",", ":"))
    metadata = {SUMS: sums, PUBLISHING: json.dumps(manifest.publishing), LOOKED: str(manifest.looked)}
    table = manifest.files.replace_schema_metadata(metadata)
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    data = sink.getvalue()
    output.write(MANIFEST, data)
    _remember(_key(data), replace(manifest, sums=json.loads(sums), read_anew=()))


def merged(old: pa.Table, stays: np.ndarray, new: pa.Table) -> pa.Table:
    """The rows of `old` (sorted by path) that stay, and those of `new`, sorted. Where little changes, nothing of `old` is copied.

    stays [N]: which rows of `old` do.
    """
    new, edges = new.sort_by("path"), np.flatnonzero(stays[1:] != stays[:-1]) + 1
    if len(new) + len(edges) + old["path"].num_chunks > PIECES:
        return pa.concat_tables([old.filter(pa.array(stays)), new]).sort_by("path")
    paths = old["path"]
    at = [bisect(range(len(old)), path, key=lambda i: paths[i].as_py()) for path in new["path"].to_pylist()]
    parts, cuts = [], sorted({0, len(old), *edges.tolist(), *at})
    for first, stop in pairwise(cuts):
        parts.append(new.slice(bisect_left(at, first), bisect(at, first) - bisect_left(at, first)))
        parts += [old.slice(first, stop - first)] if stays[first] else []
    parts.append(new.slice(bisect_left(at, len(old))))
    return pa.concat_tables(part for part in parts if len(part)) if any(map(len, parts)) else new


def entry(path: str, version: str, record: dict[str, Any], size: int | None) -> dict[str, Any]:
    """The manifest's row for one file. record: as its footer has it. size: of the file in bytes."""
    labels = [int(label) for label in record["stats"]["labels"]]
    least, most = record.get("scores") or (None, None)
    return {
        "path": path, "shard": record["shard"], "first": record["first"], "last": record["stop"] - 1, "version": version,
        "rows": record["rows"], "bytes": size, "run": record.get("run"), "errors": sum(record["errors"].values()),
        "label_min": min(labels, default=None), "label_max": max(labels, default=None),
        "score_min": least, "score_max": most,
    }  # fmt: skip


def as_table(entries: Iterable[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(entries), SCHEMA)


class NewFiles:
    """What a run wrote: entries of the manifest, and sums, apart for each folder that is staged: it may not be published.

    Memory: some 200 bytes a file.
    """

    def __init__(self) -> None:
        self.tables: list[pa.Table] = []
        self.entries: list[dict[str, Any]] = []
        self.sums: defaultdict[str, list[Stats]] = defaultdict(list)
        self.count = 0

    def add(self, record: dict[str, Any]) -> None:
        """record: of one chunk, as a replica sends it."""
        folder = record["file"].partition("/")[0] if record["staged"] else ""
        version = record["file"].rsplit(".", 2)[1]
        path = f"{STAGING if record['staged'] else DATA}/{record['file']}"
        self.count += 1
        self.entries.append(entry(path, version, record, record["written"]))
        self.sums[folder].append(table_sums(record["stats"]))
        if len(self.sums[folder]) >= SUMS_BATCH:
            self.sums[folder] = [add_stats(self.sums[folder])]
        if len(self.entries) >= BATCH:
            self.table()

    def table(self) -> pa.Table:
        """All entries so far; a file that was written twice is there twice."""
        self.tables.append(as_table(self.entries))
        self.entries = []
        return pa.concat_tables(self.tables)

    def sum_of(self, folders: Iterable[str]) -> Stats:
        """Of what is not staged, and of these staged folders."""
        return add_stats(part for folder in ("", *folders) for part in self.sums.get(folder, ()))


def table_sums(stats: Stats) -> Stats:
    """Those of `stats` that are kept of the whole table: not those that only say how a run's rows differ."""
    return stats | {"embedding": None, "norm": None}
