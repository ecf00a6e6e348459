"""Shards to chunks: which rows make one task and one output file, decided from footers alone.

A plan is a small Arrow table, one row a chunk; memory and time grow with chunks, never with rows.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Shard:
    """One source file.

    name: relative path, unique in the source; the output's `shard` column. It depends on the file and on the configured
    source alone, never on what else is there: a name that changes would label its rows a second time.
    url: where a replica opens it.
    version: short hash of its size and etag (or modification time): another version is another shard's content.
    rows: how many rows it holds; None where only reading it to the end can tell (then it is one chunk).
    groups: sizes of the pieces that are read as a whole (row groups), in order; they sum to `rows`.
    """

    name: str
    url: str
    version: str
    rows: int | None
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows `first` to `stop` (not included; None: to the end, known when it is read) of one shard."""

    shard: str
    url: str
    version: str
    first: int
    stop: int | None
    staged: bool = False  # replaces rows that readers still see: published with its whole shard

    @property
    def rows(self) -> int | None:
        return None if self.stop is None else self.stop - self.first

    def __str__(self) -> str:
        return self.shard if self.stop is None else f"{self.shard} rows {self.first}-{self.stop - 1}"


CHUNK_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),
        ("url", pa.string()),
        ("version", pa.string()),
        ("first", pa.int64()),
        ("stop", pa.int64()),
        ("staged", pa.bool_()),
    ]
)


def chunk_table(chunks: Iterable[Chunk]) -> pa.Table:
    columns = list(zip(*((c.shard, c.url, c.version, c.first, c.stop, c.staged) for c in chunks), strict=True))
    columns = columns or [()] * len(CHUNK_SCHEMA)
    return pa.table([pa.array(v, t) for v, t in zip(columns, CHUNK_SCHEMA.types, strict=True)], schema=CHUNK_SCHEMA)


def chunks_of_table(table: pa.Table) -> Iterator[Chunk]:
    for row in table.to_pylist():
        yield Chunk(**row)


def cut(rows: int, groups: Iterable[int], chunk_rows: int) -> Iterator[tuple[int, int]]:
    """Cut `rows` into ranges of at most `chunk_rows`, at the edges of row groups wherever those are small enough.

    A boundary inside a row group makes two tasks read it; so groups stay whole, and only one larger than `chunk_rows`
    is divided, evenly: nothing is left over that would make a tiny file.
    """
    if not rows:
        return
    even = -(-rows // -(-rows // chunk_rows))  # ceil(rows / number of chunks)
    first = stop = 0
    for group in groups or (rows,):
        if stop > first and stop - first + group > chunk_rows:
            yield first, stop
            first = stop
        if group > chunk_rows:
            pieces = -(-group // chunk_rows)
            edges = [first + group * i // pieces for i in range(pieces + 1)]
            yield from zip(edges, edges[1:], strict=False)
            first = stop = first + group
            continue
        stop += group
        if stop - first >= even:
            yield first, stop
            first = stop
    if stop > first:
        yield first, stop


@dataclass(frozen=True)
class Cut:
    """The chunks of `shards` in order, cut anew by whoever goes through them: a million would be most of a plan's memory."""

    shards: Sequence[Shard]
    chunk_rows: int

    def __iter__(self) -> Iterator[Chunk]:
        return plan_chunks(self.shards, self.chunk_rows)


def plan_chunks(
    shards: Iterable[Shard],
    chunk_rows: int,
    limit: int | None = None,
    count: Callable[[Shard, int], int] | None = None,
) -> Iterator[Chunk]:
    """The chunks of `shards` in order; with `limit`, exactly its first `limit` rows, and no shard is asked for after them.

    count: counts the rows of a shard that does not know them, up to a number; asked with a limit only.
    """
    left = limit
    for shard in shards:
        if shard.rows is None:
            rows = count(shard, left + 1) if count and left is not None else 0
            # Whole as long as the limit lets it: where a shard ends, only the reader of its last chunk sees.
            yield Chunk(shard.name, shard.url, shard.version, 0, left if left is not None and rows > left else None)
            left = None if left is None else max(0, left - rows)
        else:
            for first, stop in cut(shard.rows, shard.groups, chunk_rows):
                if left is not None:
                    stop = min(stop, first + left)
                    left -= stop - first
                yield Chunk(shard.name, shard.url, shard.version, first, stop)
                if left == 0:
                    return
        if left == 0:
            return
