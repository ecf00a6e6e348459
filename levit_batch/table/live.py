"""Which chunk files readers see now: the manifest, and a look at what is newer than it.

On a local disk a folder's time tells whether its files changed since. A store has no such times: there the manifest counts,
unless a run has left its mark that it was changing the table; then, and where there is no manifest, everything is listed.
"""

import functools
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from levit_batch.job.chunks import Chunk
from levit_batch.table.manifest import Manifest, coded, read_manifest
from levit_batch.table.output import DATA, FOLDER, MANIFEST, UNMEASURED, Output, Written

UNKNOWN = 1 << 62
TICK = 10**7  # ns: the clock of a disk goes in steps
AGE = 2 * 10**9  # ns: a store tells whole seconds only


@dataclass(frozen=True)
class Live(Mapping):
    """The visible files by folder. Those that the manifest knows are made when they are asked for: there may be a million.

    known: rows of the manifest by folder, for those that did not change since. listed: the files of the others. since: files
    written after this time (ns) may have been written anew under the same name. changed: the folders in which anything may have
    changed since; None: any. looked: when this was (ns).
    """

    manifest: Manifest | None
    known: dict[str, tuple[int, int]]
    listed: dict[str, list[Written]]
    since: int = 0
    changed: tuple[str, ...] | None = None
    looked: int = 0

    def __getitem__(self, folder: str) -> list[Written]:
        if folder in self.listed:
            return self.listed[folder]
        first, stop = self.known[folder]
        return list(_of_manifest(self.manifest, first, stop))

    def __iter__(self) -> Iterator[str]:
        yield from self.known
        yield from self.listed

    def __len__(self) -> int:
        return len(self.known) + len(self.listed)

    @property
    def current(self) -> bool:
        """Whether the manifest names these files and no other."""
        return bool(self.manifest) and not self.listed and len(self.known) == len(self.manifest.slices)

    def holds(self, folder: str, chunks: Sequence[Chunk]) -> bool:
        """Whether the folder's files are known to be just `chunks` of one version; False also where only the files can tell."""
        if not chunks or folder not in self.known or any(chunk.stop is None for chunk in chunks):
            return False
        first, stop = self.known[folder]
        firsts, lasts, versions, numbers = self._columns
        return (
            firsts[first:stop].tolist() == [chunk.first for chunk in chunks]
            and lasts[first:stop].tolist() == [chunk.stop - 1 for chunk in chunks]
            and numbers[first:stop].tolist() == [versions.get(chunks[0].version)] * len(chunks)
        )

    @functools.cached_property
    def _columns(self) -> tuple[np.ndarray, np.ndarray, dict[str, int], np.ndarray]:
        """First rows, last rows, and the versions' numbers with that of each file, as the manifest has them."""
        files = self.manifest.files
        versions, numbers = coded(files["version"])
        return files["first"].to_numpy(), files["last"].to_numpy(), {one: i for i, one in enumerate(versions)}, numbers


def _of_manifest(manifest: Manifest, first: int, stop: int) -> Iterator[Written]:
    part = manifest.files.slice(first, stop - first)
    columns = [part[name].to_pylist() for name in ("path", "first", "last", "version", "bytes")]
    for path, first_row, last, version, size in zip(*columns, strict=True):
        name = path.rpartition("/")[2]
        yield Written(first_row, None if "-end." in name else last + 1, version, name, size)


def look(output: Output) -> Live:
    """The files that readers see. Reads the manifest, and lists what may differ from it."""
    looked = time.time_ns() - TICK
    manifest = read_manifest(output)
    if manifest is None or manifest.publishing:
        return Live(None, {}, output.written(), looked=looked)
    if output.place.local:
        return replace(_look_locally(output, manifest), looked=looked)
    slices = manifest.slices
    if not output.place.join(UNMEASURED).exists():
        return Live(manifest, slices, {})
    since = (output.place.join(MANIFEST).info().mtime_ns or 0) - AGE
    return _sorted_out(manifest, slices, output.written(), since)


def _sorted_out(
    manifest: Manifest, slices: dict[str, tuple[int, int]], listed: dict[str, list[Written]], since: int
) -> Live:
    """A folder whose files are all in the manifest, and older than it, did not change."""
    known = {}
    for folder, (first, stop) in slices.items():
        files = listed.get(folder, [])
        same = len(files) == stop - first and all(file.changed < since for file in files)
        if same and {file.name for file in files} == {file.name for file in _of_manifest(manifest, first, stop)}:
            known[folder] = (first, stop)
            del listed[folder]
    return Live(manifest, known, listed, since)


def _look_locally(output: Output, manifest: Manifest) -> Live:
    since = min(os.stat(output.place.join(MANIFEST).path).st_mtime_ns, manifest.looked or UNKNOWN)
    slices, known, listed, changed = manifest.slices, {}, {}, []
    try:
        with os.scandir(output.place.join(DATA).path) as folders:
            for folder in folders:
                if folder.name in slices and folder.stat().st_mtime_ns < since:
                    known[folder.name] = slices[folder.name]
                elif FOLDER.fullmatch(folder.name):
                    changed.append(folder.name)
                    if files := output.written_in(folder.name):
                        listed[folder.name] = files
    except FileNotFoundError:
        pass
    return Live(manifest, known, listed, since, tuple(changed))
