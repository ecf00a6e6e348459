"""Files of one shard merged into one, and one cut again: the rows, their order and what the footer says stay right."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from levit_batch.errors import OutputError
from levit_batch.table.footer import footer
from levit_batch.table.output import DATA, STAGING, Output, Written
from levit_batch.table.read import ChunkFile, job_of, read_table, schema_of
from levit_batch.table.scan import scan_files
from levit_batch.table.stats import add_stats, chunk_stats
from levit_batch.table.target_stats import unmatched_of, with_unmatched
from levit_batch.table.write import ROW_GROUP_ROWS, fingerprint_of, open_parquet, read_record, serialise

THREADS = 16  # each waits for one small read


@dataclass(frozen=True)
class Merge:
    """`parts` of one shard's folder that become one file."""

    folder: str
    parts: tuple[Written, ...]

    @property
    def name(self) -> str:
        first, last = self.parts[0], self.parts[-1]
        return first.name.partition("-")[0] + "-" + last.name.partition("-")[2]

    @property
    def bytes(self) -> int:
        return sum(part.size or 0 for part in self.parts)


def stage(output: Output, merge: Merge) -> bool:
    """Write the merged file where it is staged, row group after row group; False where the parts differ in their columns."""
    parts = [ChunkFile(merge.folder, part, output.place.join(DATA, merge.folder, part.name)) for part in merge.parts]
    with ThreadPoolExecutor(THREADS) as pool:
        schemas, records = pool.map(schema_of, parts), pool.map(lambda part: read_record(part.place), parts)
        if len({schema.remove_metadata() for schema in schemas}) > 1:
            return False
        metadata = footer(fingerprint_of(parts[0].place), merged_record(list(records)))
    schema, at = schema_of(parts[0]), output.place.join(STAGING, merge.folder, merge.name)
    tables = (table.cast(schema) for _, table in scan_files(parts))
    try:
        at.write_with(lambda sink: write_merged(sink, output.format, schema, tables, metadata))
    except OSError as e:
        raise OutputError(f"output.path: {output} cannot be written: {e}") from None
    return True


def write_merged(
    sink: BinaryIO, format: str, schema: pa.Schema, tables: Iterable[pa.Table], metadata: dict[bytes, bytes]
) -> None:
    """Write `tables` of `schema` as one file, Parquet in row groups of `ROW_GROUP_ROWS`, with `metadata` in it."""
    if format == "parquet":
        with open_parquet(sink, schema) as writer:
            for group in groups_of(tables):
                writer.write_table(group.replace_schema_metadata(), ROW_GROUP_ROWS)
                del group  # before the next one is read
            writer.add_key_value_metadata(metadata)
        return
    schema = schema.with_metadata({**(schema.metadata or {}), **metadata})
    with pa.ipc.new_stream(sink, schema) as writer:
        for table in tables:
            writer.write_table(table.cast(schema))


def groups_of(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows of `tables` in tables of `ROW_GROUP_ROWS`; only the last may hold fewer. None is held once it is given out."""
    have: list[pa.Table] = []
    for table in tables:
        have.append(table)
        while (rows := sum(one.num_rows for one in have)) >= ROW_GROUP_ROWS:
            last = have[-1]
            have[-1] = last.slice(0, last.num_rows - (rows - ROW_GROUP_ROWS))
            have = [pa.concat_tables(have), last.slice(have[-1].num_rows)]
            yield have.pop(0)
    if sum(one.num_rows for one in have):
        yield pa.concat_tables(have)


def merged_record(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The record of the rows of several chunks of a shard that follow each other: sums, and how the errors lie (`parts`)."""
    stats = add_stats(record["stats"] for record in records)
    scores = [score for record in records for score in record.get("scores") or () if score is not None]
    return {
        "run": max(record.get("run") or "" for record in records) or None,
        "shard": records[0]["shard"],
        "first": records[0]["first"],
        "stop": records[-1]["stop"],
        "rows": stats["rows"],
        "errors": stats["errors"],
        "stats": stats,
        "scores": [min(scores), max(scores)] if scores else None,
        "parts": [part for record in records for part in parts_of(record)],
    }


def parts_of(record: dict[str, Any]) -> list[list[Any]]:
    """[first, stop, error rows] of each chunk that a file holds; and, where it has any, its `unmatched` (`target_stats`)."""
    if parts := record.get("parts"):
        return parts
    unmatched = unmatched_of(record.get("stats"))
    some = [unmatched] if unmatched["names"] else []
    return [[record["first"], record["stop"], sum(record["errors"].values()), *some]]


def unmatched_in(record: dict[str, Any], first: int, stop: int) -> list[dict[str, Any]]:
    """The `unmatched` of the chunks in a file that begin in the rows `first` to `stop`."""
    return [one for part in parts_of(record) if first <= part[0] < stop for one in part[3:]]


def cut_out(output: Output, folder: str, file: Written, first: int, stop: int) -> str:
    """Stage a copy of the rows `first` to `stop` of one of a shard's visible files; returns its name."""
    at = output.place.join(DATA, folder, file.name)
    table, record = read_table(at).slice(first - file.first, stop - first), read_record(at)
    stats = chunk_stats(table, len(job_of(output)["class_names"]))
    stats["target"] = with_unmatched(stats["target"], unmatched_in(record, first, stop))
    record |= {"first": first, "stop": stop, "rows": stop - first, "errors": stats["errors"], "stats": stats}
    record["parts"] = [part for part in parts_of(record) if first <= part[0] < stop]
    name = f"{first:09d}-{stop - 1:09d}.{file.version}{output.ending}"
    output.place.join(STAGING, folder, name).write_bytes(serialise(table, output.format, footer(fingerprint_of(at), record)))
    return name
