"""How the table that readers see changes, beyond files that are added: shards replaced, emptied, labelled anew, or gone."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.errors import LockedError, OutputError, SourceError
from levit_batch.job.row import kept_name
from levit_batch.table.books import Change, keep
from levit_batch.table.live import look
from levit_batch.table.manifest import Manifest, NewFiles, read_manifest, write_manifest
from levit_batch.table.output import MANIFEST, Output, folder_of
from levit_batch.table.plan import Plan, Replacement
from levit_batch.table.read import chunk_files, read_file
from levit_batch.table.replace import clear_staged, replace_shard, require_files

THREADS = 16


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


def announce(plan: Plan, output: Output, drop_vanished: bool) -> bytes | None:
    """Before the table changes: what was measured of it no longer holds, also for the next run, should this one be killed.

    The mark that says so, when this run is going to change it.
    """
    changes = bool(plan.pending or plan.replacements or (plan.vanished and (drop_vanished or plan.together)))
    return output.mark() if changes else None


def settle(
    plan: Plan,
    output: Output,
    require: Callable[[], None],
    failed: Collection[str],
    drop_vanished: bool,
    written: NewFiles | None = None,
) -> Manifest:
    """What was labelled aside takes its place in the table, and what the source no longer has leaves it, or is kept.

    Where files are replaced, a manifest that names them where they are staged goes first: from then on they are the table, and
    what is cut off is brought to its end by the next run (`finish_publish`).

    require: raises when the output is not this run's any more; asked before each change. failed: chunks, by name. written: what
    this run labelled. Returns the manifest of the table as it is now.
    """
    require()
    live = look(output) if output.place.local or plan.live.manifest is None else plan.live
    if plan.pending:  # a replica that died may have left half a file
        output.delete(output.leftovers(live.changed))
    ready = publishable(plan, {chunk.shard for chunk in plan.pending if str(chunk) in failed})
    gone: list[str] = []
    if drop_vanished or (plan.together and len(ready) == len(plan.replacements) and not failed):
        gone, plan.vanished = plan.vanished, []  # their rows stand in other shards, or are to go
    if live.current and live.manifest.sums and not (ready or gone or plan.pending):
        return live.manifest
    names = {folder: replacement.names for folder, replacement in ready.items()}
    change = Change(written or NewFiles(), names, frozenset(gone), plan.before)
    return commit(output, keep(output, live, change), change, require)


def commit(output: Output, manifest: Manifest, change: Change, require: Callable[[], None]) -> Manifest:
    """Make the table what `manifest` says, which is `keep`'s of this `change`; returns it with the files in their places."""
    names, gone = change.names, change.gone
    if names or gone:
        for folder, files in names.items():
            require_files(output, folder, files)
        require()
        write_manifest(output, replace(manifest, publishing=(*names, *gone)))
        publish(output, {**names, **dict.fromkeys(gone, frozenset())}, require)
        manifest = manifest.settled()
    require()
    write_manifest(output, manifest)
    for folder, files in names.items():
        clear_staged(output, folder, files)
    require()  # or it was another's manifest that this one replaced: whoever calls says so (`marking_failure`)
    return manifest


def publishable(plan: Plan, failed: set[str]) -> dict[str, Replacement]:
    """By folder, the completely labelled new versions of shards that take the place of those that readers see.

    failed: shards with a chunk that failed; they are left to the next run.
    """
    unready = {folder_of(shard) for shard in failed}
    ready = {at: one for at, one in plan.replacements.items() if one.whole and at not in unready}
    return {} if plan.together and (failed or len(ready) < len(plan.replacements)) else ready


def publish(output: Output, names: Mapping[str, frozenset[str]], require: Callable[[], None]) -> None:
    """Let readers see these files of these folders, and no others."""
    for folder, files in names.items():
        require()
        replace_shard(output, folder, files)


def finish_publish(output: Output, require: Callable[[], None], mark: bytes | None = None) -> None:
    """Bring to its end what a run began that was cut off while it replaced shards; what is gone by now is labelled again."""
    manifest = read_manifest(output)
    if manifest is None or not manifest.publishing:
        return
    names: dict[str, set[str]] = {folder: set() for folder in manifest.publishing}
    for _, folder, name in (path.split("/") for path in manifest.files["path"].to_pylist()):
        if folder in names:
            names[folder].add(name)
    with marking_failure(output, mark):
        require()
        try:
            for folder, files in names.items():
                require_files(output, folder, frozenset(files))
        except OutputError:  # somebody deleted what it names: the files that are there tell what there is
            output.place.join(MANIFEST).delete()
            return
        publish(output, {folder: frozenset(files) for folder, files in names.items()}, require)
        require()
        write_manifest(output, manifest.settled())
        for folder, files in names.items():
            clear_staged(output, folder, frozenset(files))
        require()  # or it was another's manifest that this one replaced


@contextlib.contextmanager
def marking_failure(output: Output, mark: bytes | None = None) -> Iterator[None]:
    """Whoever is broken off inside says that the table may be another than was measured: a run beside may have said it is not.

    mark: what is said, where no run beside is known of.
    """
    try:
        yield
    except BaseException as e:
        with contextlib.suppress(OutputError):
            output.mark(None if isinstance(e, LockedError) else mark)
        raise
