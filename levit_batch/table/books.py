"""The manifest kept: what changed since the last one is read from the files' footers, or known from the run that wrote them."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from levit_batch.errors import OutputError
from levit_batch.storage.ahead import ahead
from levit_batch.table.live import Live, look
from levit_batch.table.manifest import Manifest, NewFiles, as_table, entry, merged, table_sums
from levit_batch.table.output import DATA, STAGING, Output, Written
from levit_batch.table.read import NARROW, job_of, read_table
from levit_batch.table.stats import NONE, Stats, add_stats, chunk_stats, without
from levit_batch.table.write import read_record

THREADS = 16  # each waits for one small read


@dataclass
class Change:
    """What a run does to the table that `Live` shows.

    written: by this run. names: of each folder that is replaced, its files afterwards. gone: folders without files afterwards.
    before: sums, by path, of files that this run wrote again under their names.
    """

    written: NewFiles = field(default_factory=NewFiles)
    names: Mapping[str, frozenset[str]] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()
    before: Mapping[str, Stats] = field(default_factory=dict)


def up_to_date(output: Output) -> Manifest:
    """The manifest of what readers see now; made here where the one that is there says something else. Nothing is written."""
    live = look(output)
    return live.manifest if live.current and live.manifest.sums else keep(output, live, Change())


def keep(output: Output, live: Live, change: Change) -> Manifest:
    """The manifest after `change`, in which staged files stand where they are now. Nothing is written.

    Of the files that the manifest of `live` knows none is read but those that go.
    """
    return _Keeping(output, live, change).manifest()


class _Keeping:
    """Files are rows of the old manifest and of this run's entries, found by path where anything may have changed."""

    def __init__(self, output: Output, live: Live, change: Change):
        self.output, self.live, self.change = output, live, change
        self.old = old = live.manifest.files if live.manifest else as_table([])
        self.new = own = change.written.table()
        paths = own["path"].to_pylist()
        self.own = {path: i for i, path in enumerate(paths)}
        slices = live.manifest.slices if live.manifest else {}
        touched = {*live.listed, *change.names, *change.gone, *(path.split("/")[1] for path in paths)}
        self.untouched = np.zeros(len(old), bool)
        self.before: dict[str, int] = {}
        for folder, (first, stop) in slices.items():
            if folder in live.known and folder not in touched:
                self.untouched[first:stop] = True
            else:
                part = old["path"].slice(first, stop - first).to_pylist()
                self.before |= {path: first + i for i, path in enumerate(part)}
        self.wanted = {path: file for folder in touched - change.gone for path, file in self._wanted(folder)}

    @functools.cached_property
    def classes(self) -> int:
        return len(job_of(self.output)["class_names"])

    def manifest(self) -> Manifest:
        again = {path for path in self.wanted.keys() & self.before.keys() if self._written_again(path)}
        stay = self.wanted.keys() & self.before.keys() - again
        own = self.wanted.keys() & self.own.keys()
        read = [*self._read(sorted(self.wanted.keys() - stay - own))]
        stays, written = self.untouched.copy(), np.array([self.own[path] for path in own], np.int64)
        stays[[self.before[path] for path in stay]] = True
        files = merged(self.old, stays, pa.concat_tables([self.new.take(written), as_table(one for one, _ in read)]))
        sums = self._sums(self.before.keys() - stay, again, add_stats(stats for _, stats in read))
        read_anew = tuple(one["path"] for one, _ in read)
        return Manifest(files, sums or self._all(files), read_anew, looked=self.live.looked)

    def _wanted(self, folder: str) -> Iterator[tuple[str, Written | None]]:
        """The paths of one folder's files as they will be named, and what a listing said of each."""
        now: dict[str, Written | None] = {file.name: file for file in self.live.get(folder, ())}
        if not self.output.place.local:  # there `live` is of before the run
            now |= {name: now.get(name) for name in self._own_names.get(folder, ())}
        for name in self.change.names.get(folder, now.keys()):
            yield f"{DATA if name in now else STAGING}/{folder}/{name}", now.get(name)

    @functools.cached_property
    def _own_names(self) -> dict[str, list[str]]:
        """What this run wrote in sight of readers, by folder."""
        names: dict[str, list[str]] = {}
        for place, folder, name in (path.split("/") for path in self.own):
            if place == DATA:
                names.setdefault(folder, []).append(name)
        return names

    def _written_again(self, path: str) -> bool:
        """Whether a file has other rows than when the manifest was made: by this run, or by one that did not end well."""
        if path in self.own:
            return True
        file = self.wanted[path]
        if file is None or file.changed < self.live.since:
            return False
        return read_record(self.output.place.join(path)).get("run") != self.old["run"][self.before[path]].as_py()

    def _read(self, paths: Iterable[str]) -> Iterator[tuple[dict[str, Any], Stats]]:
        """Entry and sums of each file, from the files."""
        with ThreadPoolExecutor(THREADS) as pool:
            for path, (record, size) in ahead(pool, self._footer, paths, 4 * THREADS):
                yield entry(path, path.rsplit(".", 2)[1], record, size), table_sums(record["stats"])

    def _footer(self, path: str) -> tuple[dict[str, Any], int]:
        """The record of a file, made from its rows where it has none, or fewer sums than today's; and its size."""
        at = self.output.place.join(path)
        try:
            record = read_record(at)
        except OutputError:
            record = {}
        if not (record.get("stats") or {}).keys() >= NONE.keys():
            table = read_table(at, ("shard", *NARROW))
            stats, first = chunk_stats(table, self.classes), table["row"][0].as_py() if table.num_rows else 0
            record |= {"first": first, "stop": first + table.num_rows, "rows": table.num_rows, "errors": stats["errors"]}
            record |= {"stats": stats, "shard": table["shard"][0].as_py() if table.num_rows else ""}
        return record, at.info().size

    def _sums(self, gone: Iterable[str], again: set[str], read: Stats) -> Stats | None:
        """All rows in sum: what was, less what goes, and what came; None where that cannot be told."""
        own = {path for path in self.own if path.startswith(f"{DATA}/") or path.split("/")[1] in self.change.names}
        lost = self.live.manifest is not None and self.live.manifest.sums is None
        twice = len(self.own) < self.change.written.count
        if lost or twice or not own <= self.wanted.keys() or not again <= self.change.before.keys():
            return None
        try:
            less = [*self._read(path for path in gone if path not in again)]
        except (OutputError, OSError):
            return None
        if any(one["run"] != self.old["run"][self.before[one["path"]]].as_py() for one, _ in less):
            return None  # it was written again since the sums were made
        total = add_stats([self.live.manifest.sums if self.live.manifest else NONE, read])
        total = add_stats([total, self.change.written.sum_of(self.change.names)])
        return without(total, [*(stats for _, stats in less), *(table_sums(self.change.before[path]) for path in again)])

    def _all(self, files: pa.Table) -> Stats:
        """The sums of every file, read."""
        return add_stats(stats for _, stats in self._read(files["path"].to_pylist()))
