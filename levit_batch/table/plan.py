"""What is done already: the plan held against a listing of the output.

Nothing but names is compared, so a resume after a crash and tonight's increment are the same code. Done means covered: rows
of a shard's version that any finished file holds are not labelled again, however the plan cuts them today.
"""

import contextlib
from bisect import bisect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain, groupby

import pyarrow.compute as pc

from levit_batch.errors import OutputError
from levit_batch.job.chunks import Chunk, Shard
from levit_batch.storage.place import Place
from levit_batch.table.live import Live, look
from levit_batch.table.output import STAGING, Output, Written, folder_of
from levit_batch.table.stats import Stats
from levit_batch.table.write import read_record

THREADS = 16  # each waits for one small read
NO_FILES = Live(None, {}, {})
END = 1 << 62  # the stop of a file or chunk that goes to its shard's end


@dataclass(frozen=True)
class Replacement:
    """A shard whose visible files are replaced by `names`, staged or visible already, in one step, when all are there.

    whole: False where `limit` cuts the shard, so nothing is published.
    """

    names: frozenset[str]
    whole: bool = True


class Done:
    """The finished files that count, each as the chunk it holds, to go through.

    There may be a million: of a shard whose files are all known, only its name stays, and they are made when they are asked for.
    """

    def __init__(self, live: Live = NO_FILES, chunks: Iterable[Chunk] = ()):
        self.live, self.known, self.gone = live, 0, set()
        self.shards: list[Shard] = []
        self.chunks = list(chunks)

    def add_shard(self, shard: Shard, files: int) -> None:
        """All `files` files of the shard count."""
        self.shards.append(shard)
        self.known += files

    def __len__(self) -> int:
        return self.known + len(self.chunks) - len(self.gone)

    def __iter__(self) -> Iterator[Chunk]:
        known = (chunk_of(shard, file) for shard in self.shards for file in self.live[folder_of(shard.name)])
        yield from (chunk for chunk in chain(known, self.chunks) if chunk not in self.gone)

    def discard(self, chunks: Iterable[Chunk]) -> None:
        """These of them do not count any more."""
        self.gone.update(chunks)


def chunk_of(shard: Shard, file: Written, staged: bool = False) -> Chunk:
    return Chunk(shard.name, shard.url, file.version, file.first, file.stop, staged)


@dataclass
class Plan:
    """The plan, sorted into done and pending.

    done: the finished files that count, each as the chunk it holds.
    replacements, vanished: by folder; the latter have rows in the output that the source no longer has.
    new, changed: names of shards.
    garbage: files of this tool that no longer belong to anything.
    live: what readers saw when it was made. before: sums, by path, of files that are labelled again under their names.
    together: rows may move from shard to shard, so all that is new appears in one go where anything is replaced.
    """

    chunks: int = 0
    rows: int = 0
    done_rows: int = 0
    done: Done = field(default_factory=Done)
    pending: list[Chunk] = field(default_factory=list)
    replacements: dict[str, Replacement] = field(default_factory=dict)
    vanished: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    garbage: list[Place] = field(default_factory=list)
    together: bool = False
    live: Live = NO_FILES
    before: dict[str, Stats] = field(default_factory=dict)


def make_plan(
    chunks: Iterable[Chunk],
    output: Output,
    limit: int | None,
    shards: Iterable[Shard],
    together: bool = False,
    afresh: bool = False,
) -> Plan:
    """Hold planned `chunks` (grouped by shard) against the files that `output` has.

    shards: those that were planned, also those without a chunk (no rows): every one of the source, unless there is a limit.
    together: see `Plan`. afresh: nothing that `output` has counts, all of it is garbage.
    """
    live, staged = (NO_FILES, {}) if afresh else (look(output), output.written(STAGING))
    unplanned = set(live)
    garbage = output.own_files() if afresh else output.leftovers(live.changed)
    plan = Plan(garbage=garbage, together=together, live=live, done=Done(live))
    uncounted: set[str] = set()
    for shard, own in by_shard(chunks, shards):
        rows, folder = sum(chunk.rows or 0 for chunk in own), folder_of(shard.name)
        unplanned.discard(folder)
        plan.rows += rows
        if folder not in staged and live.holds(folder, own):
            plan.done.add_shard(shard, len(own))
            plan.done_rows += rows
            continue
        files = Files(shard, own, live.get(folder, []), staged.pop(folder, []), output)
        files.sort_into(plan)
        plan.done_rows += rows - sum(chunk.rows or 0 for chunk in files.missing)
        uncounted.update(shard.name for chunk in own if chunk.stop is None)
    if limit is None:
        plan.vanished = sorted(unplanned)
        plan.garbage += [output.place.join(STAGING, at, file.name) for at in staged for file in staged[at]]
    if together and (plan.changed or plan.vanished):
        _hold_back(plan, output, whole=limit is None)
    _count(plan, output, uncounted)
    plan.garbage += [] if afresh else _old_markers(plan.pending, output)
    plan.chunks = len(plan.done) + len(plan.pending)
    return plan


def by_shard(chunks: Iterable[Chunk], shards: Iterable[Shard]) -> Iterator[tuple[Shard, list[Chunk]]]:
    """Each shard with its chunks, which come in the order of the shards; a shard without rows has none."""
    groups = groupby(chunks, key=lambda chunk: chunk.shard)
    name, group = next(groups, (None, ()))
    for shard in shards:
        own = list(group) if shard.name == name else []
        if own:
            name, group = next(groups, (None, ()))
        yield shard, own
    assert name is None, f"chunks of {name} are not in the order of the shards"


class Files:
    """The files of one shard against its planned chunks.

    kept, ready: those that count, of the planned version and without overlaps, visible or staged. missing: the planned rows
    that neither holds. strays: visible files that cannot stay.
    """

    def __init__(self, shard: Shard, planned: list[Chunk], live: list[Written], staged: list[Written], output: Output):
        self.shard, self.planned, self.live, self.staged, self.output = shard, planned, live, staged, output
        current = live if planned else []
        self.kept = disjoint(file for file in current if file.version == shard.version)
        taken = set(self.kept)
        both = disjoint([file for file in staged if file.version == shard.version], self.kept)
        self.ready = [file for file in both if file not in taken]
        self.missing = [*uncovered(planned, both)]
        self.strays = [file for file in live if file not in taken]

    def sort_into(self, to: Plan) -> None:
        name, folder = self.shard.name, folder_of(self.shard.name)
        replaced = bool(self.strays or self.ready)
        missing = [replace(chunk, staged=replaced) for chunk in self.missing]
        if replaced:
            names = {file.name for file in self.kept + self.ready} | {self.output.file_name(c) for c in missing}
            to.replacements[folder] = Replacement(frozenset(names), self._whole())
        if any(file.version != self.shard.version for file in self.live) or (self.live and not self.planned):
            to.changed.append(name)
        elif not self.live and self.planned:
            to.new.append(name)
        waste = [file for file in self.staged if file not in self.ready]
        to.garbage += [self.output.place.join(STAGING, folder, file.name) for file in waste]
        end = _stop(self.planned[-1].stop) if self.planned else 0  # files behind a limit are not of this plan
        to.done.chunks += [chunk_of(self.shard, file) for file in self.kept if file.first < end]
        to.done.chunks += [chunk_of(self.shard, file, staged=True) for file in self.ready if file.first < end]
        to.pending += missing

    def _whole(self) -> bool:
        """Whether the plan holds all rows of the shard: a limit may cut it, and rows of two versions cannot be compared."""
        return not self.planned or self.planned[-1].stop in (None, self.shard.rows)


def disjoint(files: Iterable[Written], beside: Sequence[Written] = ()) -> list[Written]:
    """Files of one version without overlaps, in row order: of two that overlap the one that begins first, or is longer, stays.

    Those `beside` (in row order, without overlaps) stay in any case.
    """
    firsts, kept = [file.first for file in beside], []
    for file in sorted(files, key=lambda file: (file.first, -_stop(file.stop))):
        after = bisect(firsts, file.first)
        free = after == 0 or _stop(beside[after - 1].stop) <= file.first
        free = free and (after == len(beside) or beside[after].first >= _stop(file.stop))
        if free and (not kept or file.first >= _stop(kept[-1].stop)):
            kept.append(file)
    return sorted([*beside, *kept], key=lambda file: file.first)


def uncovered(chunks: Iterable[Chunk], files: list[Written]) -> Iterator[Chunk]:
    """The rows of `chunks` that none of `files` holds, as chunks. Both are in row order and without overlaps."""
    i = 0
    for chunk in chunks:
        first, stop = chunk.first, _stop(chunk.stop)
        while i < len(files) and files[i].first < stop:
            file = files[i]
            if _stop(file.stop) > first:
                if file.first > first:
                    yield replace(chunk, first=first, stop=file.first)
                first = _stop(file.stop)
            if first > stop:  # it reaches into the next chunk
                break
            i += 1
        if first < stop:
            yield replace(chunk, first=first)


def _stop(stop: int | None) -> int:
    return END if stop is None else stop


def _hold_back(plan: Plan, output: Output, whole: bool) -> None:
    """Stage what would be written in sight of readers: its rows may still stand in a shard that is replaced.

    whole: False where a limit leaves out shards that rows may have moved to: then nothing is published.
    """
    held = {chunk.shard for chunk in plan.pending if not chunk.staged}
    names: dict[str, set[str]] = defaultdict(set)
    for chunk in chain(plan.done, plan.pending):
        if chunk.shard in held:
            names[folder_of(chunk.shard)].add(output.file_name(chunk))
    plan.replacements |= {folder: Replacement(frozenset(files)) for folder, files in names.items()}
    if not whole:
        plan.replacements = {at: replace(one, whole=False) for at, one in plan.replacements.items()}
    plan.pending = [replace(chunk, staged=True) for chunk in plan.pending]


def _count(plan: Plan, output: Output, shards: set[str]) -> None:
    """The finished rows of shards that only reading can count: the manifest has them, and else the files' footers."""
    done = [(output.chunk_place(chunk), chunk) for chunk in plan.done.chunks if chunk.shard in shards]
    known: dict[str, int] = {}
    if done and plan.live.manifest:
        files = plan.live.manifest.files.select(["path", "rows"])
        files = files.filter(pc.match_substring(files["path"], "-end."))
        known = {output.place.join(path).path: rows for path, rows in zip(*files.to_pydict().values(), strict=True)}
    unread = [at for at, chunk in done if chunk.stop is None and at.path not in known]
    with ThreadPoolExecutor(THREADS) as pool:
        rows = sum(pool.map(_rows_in, unread))
    rows += sum(known.get(at.path, 0) if chunk.stop is None else chunk.rows for at, chunk in done)
    plan.rows, plan.done_rows = plan.rows + rows, plan.done_rows + rows


def _rows_in(at: Place) -> int:
    with contextlib.suppress(OutputError, OSError, KeyError):  # whoever needs its rows says what is wrong with it
        return read_record(at)["rows"]
    return 0


def _old_markers(pending: list[Chunk], output: Output) -> list[Place]:
    """Markers of attempts at chunks that are not pending: their process died between the chunk's file and the marker."""
    names = {output.chunk_name(chunk) for chunk in pending}
    markers = [f"{folder}/{file.name}" for folder, files in output.written("_attempts").items() for file in files]
    return [output.place.join("_attempts", name) for name in markers if name not in names]
