"""What is done already: the plan held against a listing of the output.

Nothing but names is compared, so a resume after a crash and tonight's increment are the same code.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import groupby

from levit_batch.output import Output, Written
from levit_batch.plan import Chunk
from levit_batch.storage import Place


@dataclass(frozen=True)
class Replacement:
    """A shard whose visible rows are replaced by a whole new set, in one step, when that is complete."""

    shard: str
    chunks: int  # how many files the new set has
    keep: tuple[str, ...]  # visible files that stay valid and join the new set
    whole: bool  # False: `limit` cut the shard short of the rows that readers see now, so nothing is published


@dataclass
class Progress:
    """The plan, sorted into done and pending.

    vanished: shards with rows in the output that the source no longer has; their rows are kept.
    garbage: files of this tool that no longer belong to anything.
    """

    chunks: int = 0
    rows: int = 0
    done: list[Chunk] = field(default_factory=list)
    files: list[str] = field(
        default_factory=list
    )  # the file of each done chunk; it may hold more rows than a limit plans
    pending: list[Chunk] = field(default_factory=list)
    replacements: dict[str, Replacement] = field(default_factory=dict)
    vanished: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    garbage: list[Place] = field(default_factory=list)

    @property
    def done_rows(self) -> int:
        return sum(chunk.rows or 0 for chunk in self.done)


def compare(chunks: Iterable[Chunk], output: Output, limit: int | None, shards: set[str] | None = None) -> Progress:
    """Hold planned `chunks` (grouped by shard) against the files that `output` has.

    `shards` names every shard the source has, also those without a chunk (no rows); it tells which have vanished.
    """
    live, staged = output.written("data"), output.written("_staging")
    progress = Progress(garbage=output.leftovers())
    seen = set(shards or ())
    left = limit
    for shard, group in groupby(chunks, key=lambda chunk: chunk.shard):
        planned = list(group)
        seen.add(shard)
        rows = sum(chunk.rows or 0 for chunk in planned)
        left = None if left is None else left - rows
        _sort(shard, planned, live.get(shard, []), staged.pop(shard, []), left == 0, output, progress)
        progress.chunks += len(planned)
        progress.rows += rows
    for shard, files in staged.items():
        progress.garbage += [output.place.join("_staging", shard, file.name) for file in files]
    progress.garbage += _old_markers(progress.pending, output)
    if limit is None:
        progress.vanished = sorted(set(live) - seen)
    return progress


def _old_markers(pending: list[Chunk], output: Output) -> list[Place]:
    """Markers of attempts at chunks that are not pending: their process died between the chunk's file and the marker."""
    names = {output.chunk_name(chunk) for chunk in pending}
    found = [f"{shard}/{file.name}" for shard, files in output.written("_attempts").items() for file in files]
    return [output.place.join("_attempts", name) for name in found if name not in names]


def _sort(
    shard: str,
    planned: list[Chunk],
    live: list[Written],
    staged: list[Written],
    cut: bool,
    output: Output,
    to: Progress,
) -> None:
    """Sort one shard's chunks into done and pending, directly or as a replacement."""
    by_first = {file.first: file for file in live}
    done, missing = [], []
    for chunk in planned:
        file = by_first.get(chunk.first)
        (done if file and file.covers(chunk) else missing).append(chunk)
    files = [f"data/{shard}/{by_first[chunk.first].name}" for chunk in done]
    ready: set[str] = set()
    if missing and (live or staged):
        names = {output.file_name(chunk) for chunk in missing}
        ready = {file.name for file in staged} & names
        if ready or _strays(planned, live):
            keep = tuple(by_first[chunk.first].name for chunk in done)
            whole = not cut or _end(planned) >= max((_stop(file) for file in live), default=0)
            to.replacements[shard] = Replacement(shard, len(planned), keep, whole)
            missing = [replace(chunk, staged=True) for chunk in missing]
            done += [chunk for chunk in missing if output.file_name(chunk) in ready]
            files += [
                f"_staging/{shard}/{output.file_name(chunk)}" for chunk in missing if output.file_name(chunk) in ready
            ]
            missing = [chunk for chunk in missing if output.file_name(chunk) not in ready]
    if any(file.version != planned[0].version for file in live):
        to.changed.append(shard)
    elif not live:
        to.new.append(shard)
    to.garbage += [output.place.join("_staging", shard, file.name) for file in staged if file.name not in ready]
    to.done += done
    to.files += files
    to.pending += missing


def _strays(planned: list[Chunk], live: list[Written]) -> list[Written]:
    """Visible files that cannot stay beside the planned chunks: another version, or a part of a planned chunk's rows."""
    version, by_first = planned[0].version, {chunk.first: chunk for chunk in planned}
    end = _end(planned)
    return [
        file
        for file in live
        if file.version != version or (file.first < end and not _fits(file, by_first.get(file.first)))
    ]


def _fits(file: Written, chunk: Chunk | None) -> bool:
    return chunk is not None and file.covers(chunk)


def _stop(file: Written) -> int:
    return 1 << 62 if file.stop is None else file.stop


def _end(planned: list[Chunk]) -> int:
    stop = planned[-1].stop
    return 1 << 62 if stop is None else stop
