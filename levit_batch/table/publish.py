"""How the table that readers see changes, beyond files that are added: shards replaced, emptied, labelled anew, or gone."""

from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.errors import SourceError
from levit_batch.job.row import kept_name
from levit_batch.table.output import UNMEASURED, Output, folder_of
from levit_batch.table.plan import Plan
from levit_batch.table.read import chunk_files, read_file
from levit_batch.table.write import read_record

THREADS = 16


def reopen_errors(plan: Plan, output: Output) -> None:
    """`--retry-errors`: finished chunks that hold error rows become pending again, as their files have them."""
    with ThreadPoolExecutor(THREADS) as pool:
        records = list(pool.map(lambda chunk: read_record(output.chunk_place(chunk)), plan.done))
    marked = list(zip(plan.done, records, strict=True))
    plan.done = [chunk for chunk, record in marked if not record["errors"]]
    plan.pending += [chunk for chunk, record in marked if record["errors"]]
    plan.done_rows -= sum(record["rows"] for _, record in marked if record["errors"])


def rows_gone(plan: Plan, output: Output, listed: pa.ChunkedArray | None, column: str) -> tuple[int, int, str]:
    """Of a source that cuts shards out of a listing: rows of the output that are in none of today's shards, all rows of the
    output, and the name of one that is gone. listed: what names the source's rows now, kept as `column`; None: not such a source.

    Only what is replaced or retired is looked at. Such a row has gone with its file; the others moved to another shard.
    """
    replaced = {*plan.vanished, *map(folder_of, plan.changed)}
    if listed is None or not replaced:
        return 0, 0, ""
    files, column = chunk_files(output), kept_name(column)
    names = [read_file(file, [column])[column].cast(pa.large_string()) for file in files if file.folder in replaced]
    names = pa.chunked_array([chunk for part in names for chunk in part.chunks], pa.large_string()).drop_null()
    gone = names.filter(pc.invert(pc.is_in(names, listed.cast(pa.large_string()).combine_chunks())))
    total = sum((file.written.stop or file.written.first) - file.written.first for file in files)
    return len(gone), total, gone[0].as_py() if len(gone) else ""


def check_gone(
    plan: Plan, output: Output, listed: pa.ChunkedArray | None, column: str, most: float
) -> int:
    """The number of rows that go tonight, see `rows_gone`. Raises SourceError when they are more than the share `most`."""
    gone, total, name = rows_gone(plan, output, listed, column)
    if gone > most * total:
        raise SourceError(
            f"source.path: {gone:,} of the output's {total:,} rows are of files that are not there any more ({name}, ...), more "
            f"than output.max_gone_rate={most:g}; nothing was changed. Is a disk or a folder missing? Run again when it is back; "
            "if they are to go, say --drop-vanished"
        )
    return gone


def announce(plan: Plan, output: Output, drop_vanished: bool) -> bool:
    """Before the table changes: what was measured of it no longer holds, also for the next run, should this one be killed.

    True when this run is going to change it.
    """
    changes = bool(plan.pending or plan.replacements or (plan.vanished and (drop_vanished or plan.together)))
    if changes:
        output.write(UNMEASURED, b"")
    return changes


def settle(
    plan: Plan, output: Output, require: Callable[[], None], failed: Collection[str], drop_vanished: bool
) -> None:
    """What was labelled aside takes its place in the table, and what the source no longer has leaves it, or is kept.

    require: raises when the output is not this run's any more; asked before each change. failed: chunks, by name.
    """
    require()
    if plan.pending:  # a replica that died may have left half a file
        output.delete(output.leftovers())
    complete = publish(plan, output, require, {chunk.shard for chunk in plan.pending if str(chunk) in failed})
    if drop_vanished or (plan.together and complete and not failed):  # then their rows stand in other shards
        retire(plan.vanished, output, require)
        plan.vanished = []


def publish(plan: Plan, output: Output, require: Callable[[], None], failed: set[str]) -> bool:
    """Let each completely labelled new version of a shard take the place of the one that readers see; True when all did.

    failed: shards with a chunk that failed; they are left to the next run.
    """
    unready = {folder_of(shard) for shard in failed}
    ready = {
        folder: replacement
        for folder, replacement in plan.replacements.items()
        if replacement.whole and folder not in unready
    }
    if plan.together and (failed or len(ready) < len(plan.replacements)):
        return False
    for folder, replacement in ready.items():
        require()
        output.publish(folder, replacement.names)
    return len(ready) == len(plan.replacements)


def retire(folders: list[str], output: Output, require: Callable[[], None]) -> None:
    """Delete the rows of shards that the source no longer has."""
    for folder in folders:
        require()
        output.publish(folder, frozenset())
