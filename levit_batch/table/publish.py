"""How the table that readers see changes, beyond files that are added: shards replaced, emptied, labelled anew, or gone."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.errors import SourceError
from levit_batch.job.row import kept_name
from levit_batch.table.output import Output, folder_of
from levit_batch.table.plan import Progress
from levit_batch.table.read import chunk_files, read_file
from levit_batch.table.write import read_record

THREADS = 16


def reopen_errors(progress: Progress, output: Output) -> None:
    """`--retry-errors`: finished chunks that hold error rows become pending again, as their files have them."""
    with ThreadPoolExecutor(THREADS) as pool:
        records = list(pool.map(lambda chunk: read_record(output.chunk_place(chunk)), progress.done))
    marked = list(zip(progress.done, records, strict=True))
    progress.done = [chunk for chunk, record in marked if not record["errors"]]
    progress.pending += [chunk for chunk, record in marked if record["errors"]]
    progress.done_rows -= sum(record["rows"] for _, record in marked if record["errors"])


def rows_gone(progress: Progress, output: Output, listed: pa.ChunkedArray | None, column: str) -> tuple[int, int, str]:
    """Of a source that cuts shards out of a listing: rows of the output that are in none of today's shards, all rows of the
    output, and the name of one that is gone. listed: what names the source's rows now, kept as `column`; None: not such a source.

    Only what is replaced or retired is looked at. Such a row has gone with its file; the others moved to another shard.
    """
    replaced = {*progress.vanished, *map(folder_of, progress.changed)}
    if listed is None or not replaced:
        return 0, 0, ""
    files, column = chunk_files(output), kept_name(column)
    names = [read_file(file, [column])[column].cast(pa.large_string()) for file in files if file.folder in replaced]
    names = pa.chunked_array([chunk for part in names for chunk in part.chunks], pa.large_string()).drop_null()
    gone = names.filter(pc.invert(pc.is_in(names, listed.cast(pa.large_string()).combine_chunks())))
    total = sum((file.written.stop or file.written.first) - file.written.first for file in files)
    return len(gone), total, gone[0].as_py() if len(gone) else ""


def check_gone(
    progress: Progress, output: Output, listed: pa.ChunkedArray | None, column: str, most: float
) -> int:
    """The number of rows that go tonight, see `rows_gone`. Raises SourceError when they are more than the share `most`."""
    gone, total, name = rows_gone(progress, output, listed, column)
    if gone > most * total:
        raise SourceError(
            f"source.path: {gone:,} of the output's {total:,} rows are of files that are not there any more ({name}, ...), more "
            f"than output.max_gone_rate={most:g}; nothing was changed. Is a disk or a folder missing? Run again when it is back; "
            "if they are to go, say --drop-vanished"
        )
    return gone


def publish(
    progress: Progress, output: Output, require: Callable[[], None], failed: set[str], together: bool = False
) -> bool:
    """Let each completely labelled new version of a shard take the place of the one that readers see; True when all did.

    failed: shards with a chunk that failed; they are left to the next run. together: all are replaced, or none.
    require: raises when the output is not this run's any more; asked before each change.
    """
    unready = {folder_of(shard) for shard in failed}
    ready = {
        folder: replacement
        for folder, replacement in progress.replacements.items()
        if replacement.whole and folder not in unready
    }
    if together and (failed or len(ready) < len(progress.replacements)):
        return False
    for folder, replacement in ready.items():
        require()
        output.publish(folder, replacement.names)
    return len(ready) == len(progress.replacements)


def retire(folders: list[str], output: Output, require: Callable[[], None]) -> None:
    """Delete the rows of shards that the source no longer has."""
    for folder in folders:
        require()
        output.publish(folder, frozenset())
