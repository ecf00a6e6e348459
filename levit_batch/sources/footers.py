"""What footers said of a source's files, kept beside the output, so that a nightly plan reads new files' footers only."""

import hashlib
import io
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.parquet as pq

from levit_batch.job.chunks import Shard
from levit_batch.storage.identity import COMMIT, File
from levit_batch.storage.place import Place

THREADS = 32
SETTLED = 60 * 10**9  # ns: a file as young may be written again without a new time (a second on S3, by another's clock)
COLUMNS = pa.schema(
    [
        ("file", pa.string()),
        ("version", pa.string()),
        ("rows", pa.int64()),
        ("groups", pa.list_(pa.int64())),
        ("columns", pa.dictionary(pa.int32(), pa.binary())),
    ]
)


@dataclass(frozen=True, slots=True)
class Footer:
    """What opening a file tells: version, rows, groups as a `Shard` has them; columns: `columns_of` its schema, or None."""

    version: str
    rows: int | None
    groups: tuple[int, ...] = ()
    columns: bytes | None = None


def columns_of(schema: pa.Schema) -> bytes:
    """Names and types; the metadata is left out: class names in every row of the table would be its largest part."""
    return schema.remove_metadata().serialize().to_pybytes()


class Footers:
    """Footers by file as a listing knows it: its address, size and stamp. What is known costs no request.

    at: where they are kept; None: nowhere. A table there that is lost or damaged costs reading the footers again, no more.
    """

    def __init__(self, at: Place | None = None):
        self.at, self.new = at, False
        self.known = _load(at) if at else {}
        self.used: dict[str, Footer] = {}

    def shards(
        self, files: Sequence[File], read: Callable[[File], Footer], check: Callable[[File, pa.Schema], None] | None = None
    ) -> Iterator[Shard]:
        """Each of `files` as a shard, in order; those that are not known are read, side by side.

        check: raises SourceError for a file whose columns do not do; asked once for all files of the same columns.
        """
        now, keys, checked = time.time_ns(), [_key(file) for file in files], {None: None}
        with ThreadPoolExecutor(THREADS) as pool:
            fresh = pool.map(read, [file for file, key in zip(files, keys, strict=True) if key not in self.known])
            try:
                for file, key in zip(files, keys, strict=True):
                    known = self.known.get(key)
                    footer = known or next(fresh)
                    if check and footer.columns not in checked:
                        check(file, pa.ipc.read_schema(pa.py_buffer(footer.columns)))
                    columns = checked.setdefault(footer.columns, footer.columns)  # the same object for all files
                    footer = known or replace(footer, columns=columns)
                    if known or _settled(file, now):
                        self.used[key], self.new = footer, self.new or not known
                    yield Shard(file.name, file.url, footer.version, footer.rows, footer.groups)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def save(self, whole: bool) -> None:
        """Write what is known by now, if that is more than before. whole: every file was listed, so others are gone."""
        if self.at is None or not self.new:
            return
        kept = self.used if whole else self.known | self.used
        facts = ((f.version, f.rows, f.groups, f.columns) for f in kept.values())
        columns = [list(kept), *map(list, zip(*facts, strict=True))]
        arrays = [_array(values, field.type) for values, field in zip(columns, COLUMNS, strict=True)]
        sink = io.BytesIO()
        pq.write_table(pa.table(arrays, schema=COLUMNS), sink, compression="zstd")
        with suppress(OSError):  # what is not kept is read again
            self.at.write_bytes(sink.getbuffer())


def _array(values: list, kind: pa.DataType) -> pa.Array:
    return pa.array(values, kind.value_type).dictionary_encode() if pa.types.is_dictionary(kind) else pa.array(values, kind)


def _load(at: Place) -> dict[str, Footer]:
    try:
        with at.filesystem.open_input_file(at.path) as stream:
            table = pq.read_table(stream).cast(COLUMNS).unify_dictionaries().combine_chunks()
    except (OSError, ValueError, pa.ArrowException):
        return {}
    *plain, columns = (table.column(name) for name in COLUMNS.names)
    distinct = columns.chunk(0).dictionary.to_pylist() if columns.num_chunks else []
    numbers = columns.chunk(0).indices.to_pylist() if columns.num_chunks else []
    columns = (None if i is None else distinct[i] for i in numbers)  # each once, however many files have it
    rows = zip(*(column.to_pylist() for column in plain), columns, strict=True)
    return {key: Footer(version, count, tuple(groups), has) for key, version, count, groups, has in rows}


def _key(file: File) -> str:
    """What stands in a commit is known by its name and hash, whatever the commit; addresses may hold secrets."""
    address = file.name if COMMIT.match(file.url) else file.url
    return hashlib.blake2b(repr((address, file.size, file.stamp)).encode(), digest_size=16).hexdigest()


def _settled(file: File, now: int) -> bool:
    """Whether a file written after `now` would have another stamp, where that is a time."""
    return not file.stamp.isdecimal() or int(file.stamp) < now - SETTLED
