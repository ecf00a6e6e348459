"""The rows that two outputs share, shard by shard and piece by piece."""

from collections.abc import Iterator
from itertools import groupby

import pyarrow as pa

from levit_batch.errors import OutputError
from levit_batch.table.output import Output
from levit_batch.table.read import ChunkFile, shard_names
from levit_batch.table.scan import scan_files

COLUMNS = ("shard", "row", "label", "score", "target", "error")


def by_shard(files: list[ChunkFile]) -> Iterator[tuple[str, list[ChunkFile]]]:
    for folder, group in groupby(files, key=lambda file: file.folder):
        yield folder, list(group)


def aligned(
    one: list[ChunkFile], other: list[ChunkFile], alone: list[int], more: list[str]
) -> Iterator[tuple[ChunkFile, pa.Table, pa.Table]]:
    """Pieces of two shards' files that hold the same rows, with `more` columns; `alone` counts rows that only one of them has."""
    readers = [(pair for pair in scan_files(files, [*COLUMNS, *more]) if pair[1].num_rows) for files in (one, other)]
    left: list[tuple[ChunkFile, pa.Table] | None] = [next(reader, None) for reader in readers]
    while left[0] and left[1]:
        starts = [table["row"][0].as_py() for _, table in left]
        skip = [max(starts) - start for start in starts]
        n = min(left[i][1].num_rows - skip[i] for i in (0, 1))
        if n > 0:
            yield left[0][0], left[0][1].slice(skip[0], n), left[1][1].slice(skip[1], n)
        for i in (0, 1):
            file, table = left[i]
            alone[i] += min(skip[i], table.num_rows)
            rest = table.slice(min(skip[i] + max(n, 0), table.num_rows))
            left[i] = (file, rest) if rest.num_rows else next(readers[i], None)
    for i in (0, 1):
        alone[i] += left[i][1].num_rows if left[i] else 0
        alone[i] += sum(table.num_rows for _, table in readers[i])


def nothing_shared(outputs: tuple[Output, Output], shards: list[dict[str, list[ChunkFile]]], changed: list[str]) -> OutputError:
    """What is said of two outputs without a row that both have."""
    one, other = outputs
    if changed:
        return OutputError(
            f"{one} and {other}: nothing to compare: the content of {changed[0]}, and of every other shard that both have, was "
            "changed in between; label both over the same files"
        )
    names = [shard_names(output, [min(folders)])[0] for output, folders in zip(outputs, shards, strict=True)]
    return OutputError(
        f"nothing to compare: no row of the two has the same shard and row; {one} has for example shard {names[0]}, {other} has "
        f"shard {names[1]}; give two outputs over the same source.path"
    )
