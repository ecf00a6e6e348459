"""Few large files in place of many small ones: the neighbouring chunks of a shard merged, rows and their order as they were.

A merged file is staged like a new version of its shard, and takes the place of its parts in one step (`publish.py`). What a run
labels again, resumes or replaces is found by ranges of rows, so it does not matter how they lie in files.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

from levit_batch.table.books import Change, keep
from levit_batch.table.history import write_down
from levit_batch.table.live import Live, look
from levit_batch.table.merge import Merge, stage
from levit_batch.table.output import STAGING, Output, Written
from levit_batch.table.publish import commit, finish_publish, marking_failure

ROWS, BYTES = 1_000_000, 512 << 20  # of a merged file, at most
STEP = 4 << 30  # bytes of parts that are merged before their shards are replaced: what a killed `compact` does again at most
THREADS = min(4, os.cpu_count() or 1)  # files written side by side; each holds a row group, and reads its next parts meanwhile
OWN = b"compact"  # in the mark of a `compact` under way: the rows are as they were measured


def compact(
    output: Output,
    require: Callable[[], None],
    rows: int = ROWS,
    step: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, int]:
    """Merge what can be merged into files of at most `rows` rows; returns files {before, after} and the merged files' bytes.

    require: raises when the output is not this process's any more. step: told of bytes done, and all that are to be.
    """
    there = output.marked()
    with marking_failure(output, mark := OWN if there is None else there):
        files = _compact(output, require, rows, step, mark)
        if mark == OWN and (files["bytes"] or there):
            output.unmark(OWN)
        return files


def _compact(
    output: Output, require: Callable[[], None], rows: int, step: Callable[[int, int], None], mark: bytes
) -> dict[str, int]:
    finish_publish(output, require, mark)
    live = look(output)
    _clear(output, live)
    manifest = live.manifest
    if not live.current:
        manifest = commit(output, keep(output, live, Change()), Change(), require)
        live = look(output)
    write_down(output, manifest)
    before = sum(len(live[folder]) for folder in live)
    merges = [merge for folder in sorted(live) for merge in neighbours(folder, live[folder], rows)]
    total, done = sum(merge.bytes for merge in merges), 0
    if merges:
        output.mark(mark)  # a store is listed again, should this be killed
        for some in _steps(merges):
            step(done, total)
            _merge_all(output, require, live, some)
            done += sum(merge.bytes for merge in some)
            live = look(output)
    step(done, total)
    return {"before": before, "after": sum(len(live[folder]) for folder in live), "bytes": total}


def _clear(output: Output, live: Live) -> None:
    """Delete what one that was killed left: half files, and staged ones that stand in their place by now."""
    staged = output.written(STAGING)
    names = {folder: {file.name for file in live.get(folder, ())} for folder in staged}
    settled = [(folder, file.name) for folder, files in staged.items() for file in files if file.name in names[folder]]
    output.delete([*output.leftovers(live.changed), *(output.place.join(STAGING, *at) for at in settled)])
    output.tidy(live.changed)


def neighbours(folder: str, files: Iterable[Written], rows: int) -> Iterator[Merge]:
    """The files of one shard that follow each other without a gap, as merges of at most `rows` rows and `BYTES` bytes."""
    part: list[Written] = []
    for file in sorted(files, key=lambda file: file.first):
        follows = part and part[-1].version == file.version and part[-1].stop == file.first
        small = sum(one.size or 0 for one in [*part, file]) <= BYTES
        if not (follows and small and (file.stop or file.first + 1) - part[0].first <= rows):
            if len(part) > 1:
                yield Merge(folder, tuple(part))
            part = []
        part.append(file)
    if len(part) > 1:
        yield Merge(folder, tuple(part))


def _steps(merges: list[Merge]) -> Iterator[list[Merge]]:
    left = iter(merges)
    while some := list(islice(left, 1)):
        size = some[0].bytes
        for merge in left:
            some.append(merge)
            size += merge.bytes
            if size >= STEP:
                break
        yield some


def _merge_all(output: Output, require: Callable[[], None], live: Live, merges: list[Merge]) -> None:
    """Stage the merged files, and let them take the place of their parts."""
    require()
    with ThreadPoolExecutor(THREADS) as pool:
        made = [merge for merge, whole in zip(merges, pool.map(lambda one: stage(output, one), merges), strict=True) if whole]
    names: dict[str, set[str]] = {}
    for merge in made:
        own = names.setdefault(merge.folder, {file.name for file in live[merge.folder]})
        own -= {part.name for part in merge.parts}
        own.add(merge.name)
    change = Change(names={folder: frozenset(own) for folder, own in names.items()})
    commit(output, keep(output, live, change), change, require)
