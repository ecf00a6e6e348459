"""`files.parquet`: a row a chunk file, and in its metadata what all their rows say in sum. One snapshot of the table: whoever
reads the files that it names reads each row once, on every store, whatever is replaced meanwhile.

It is written whole and replaced in one step. The files stay the truth: what it lacks is found by looking (`live.py`), and a
manifest that is lost is made again from their footers (`books.py`).
"""

import io
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Manifest:
    """files: `SCHEMA`, sorted by path. sums: of all rows; None where they are not known. found: paths of the files that no book
    had when it was made; not stored. publishing: the folders that a run was about to replace when it was written: their files are
    named where they are staged, and others may still be seen in the folder. looked: when the folder was looked at (ns): what
    changed later, by a run beside, is not in it.
    """

    files: pa.Table
    sums: Stats | None
    found: tuple[str, ...] = ()
    publishing: tuple[str, ...] = ()
    looked: int = 0

    def settled(self) -> "Manifest":
        """The same files where they belong."""
        paths = pc.replace_substring_regex(self.files["path"], f"^{STAGING}/", f"{DATA}/")
        found = tuple(path.replace(f"{STAGING}/", f"{DATA}/", 1) for path in self.found)
        return Manifest(self.files.set_column(0, "path", paths).sort_by("path"), self.sums, found, looked=self.looked)

    def slices(self) -> dict[str, tuple[int, int]]:
        """The rows of `files` that are of each folder, first to stop."""
        folders = folders_of(self.files["path"]).to_numpy(zero_copy_only=False)
        edges = [0, *(np.flatnonzero(folders[1:] != folders[:-1]) + 1).tolist(), len(folders)]
        return {folders[a]: (a, b) for a, b in zip(edges, edges[1:], strict=False) if a < b}


def folders_of(paths: pa.ChunkedArray) -> pa.Array:
    """The shard's folder in each of `paths`."""
    parts = pc.split_pattern(paths, "/")
    found = pc.list_element(parts, 1)
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found


def read_manifest(output: Output) -> Manifest | None:
    """The manifest of `output`; None where there is none, or none that can be read: it is made again."""
    try:
        data = output.place.join(MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as e:
        raise OutputError(f"{output.place.join(MANIFEST).url}: cannot be read: {e}") from None
    try:
        table = pq.read_table(pa.BufferReader(data))
        sums = json.loads((table.schema.metadata or {}).get(SUMS, b"null"))
        files = table.select(SCHEMA.names).cast(SCHEMA).replace_schema_metadata(None)
        whole = sums is None or sums.keys() >= NONE.keys()
        publishing = json.loads((table.schema.metadata or {}).get(PUBLISHING, b"[]"))
        looked = int((table.schema.metadata or {}).get(LOOKED, b"0"))
        if not pc.all(pc.match_substring_regex(files["path"], NAMED), min_count=0).as_py() or not all(
            map(FOLDER.fullmatch, publishing)
        ):
            return None
        return Manifest(files.combine_chunks(), sums if whole else None, publishing=tuple(publishing), looked=looked)
    except (pa.ArrowInvalid, pa.ArrowKeyError, KeyError, ValueError, AttributeError, OSError):
        return None


def write_manifest(output: Output, manifest: Manifest) -> None:
    sink = io.BytesIO()
    sums = json.dumps(manifest.sums, separators=(",", ":"))
    metadata = {SUMS: sums, PUBLISHING: json.dumps(manifest.publishing), LOOKED: str(manifest.looked)}
    table = manifest.files.replace_schema_metadata(metadata)
    pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    output.write(MANIFEST, sink.getbuffer())


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
