"""A copy of a table in few large files, for readers: many small shards share one (`compact --to`).

    data/00000.parquet  data/00001.parquet  ...    whole shards each, by their folders' names
    README.md  metrics.json  report.html           as the output has them
    _lock/                                         one copying at a time (lock.py)

What a file is made of stands in its footer, so a copy is brought up to date by writing those again whose shards changed. Each is
replaced in one step, and no shard moves from one to another (`plan_copy`): whoever reads the folder, on any disk or store and at
any time, meets each shard's rows once, as they are or as they were. (Images of a folder may move between shards: README.md.)
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from levit_batch.errors import OutputError
from levit_batch.storage.ahead import ahead
from levit_batch.storage.place import Place
from levit_batch.table.books import up_to_date
from levit_batch.table.compact import BYTES, ROWS, THREADS
from levit_batch.table.copy_plan import CopyFile, plan_copy, require_once, states
from levit_batch.table.copy_there import card_is_ours, files_there, require_apart
from levit_batch.table.footer import footer
from levit_batch.table.manifest import Manifest, read_manifest
from levit_batch.table.merge import write_merged
from levit_batch.table.output import DATA, Output
from levit_batch.table.read import ChunkFile, chunk_file, job_of, schema_of
from levit_batch.table.scan import scan_files

CARD = "README.md"
BESIDE = (CARD, "metrics.json", "report.html")  # not job.json: nobody shall label into a copy
TRIES = 5  # at a look at the table during which no run changes it


@dataclass(frozen=True)
class Copy:
    """The table `output` in few files in the folder of `to`, which is no table that anybody labels into."""

    output: Output
    to: Output

    def __post_init__(self) -> None:
        require_apart(self.output, self.to)

    @property
    def place(self) -> Place:
        return self.to.place

    def at(self, file: CopyFile) -> Place:
        return self.place.join(DATA, file.name + self.output.ending)

    def update(
        self, require: Callable[[], None], rows: int = ROWS, step: Callable[[int, int], None] = lambda done, total: None
    ) -> dict[str, int]:
        """Make the copy what the table is now; returns its files, how many of them were written, and bytes of the table read.

        require: raises when the copy is not this process's any more. step: told of bytes done, and all that are to be. Raises
        OutputError where `place` holds other things than a copy of this table, and where the table changes meanwhile: what is
        copied by then stays, and the next time goes on.
        """
        manifest = self._snapshot()
        table, there = states(manifest), self._there()
        require_once(there.values(), str(self.place.url))
        files = plan_copy(there.values(), table, rows, BYTES)
        again = [file for file in files if file.shards and file != there.get(file.number)]
        sizes = [sum(table[folder].bytes for folder in file.shards) for file in again]
        done, total = 0, sum(sizes)
        with ThreadPoolExecutor(THREADS) as pool:
            written = ahead(pool, lambda file: self._write(file, manifest, require), again, THREADS)
            for (_, _), size in zip(written, sizes, strict=True):
                done += size
                step(done, total)
        require()
        for file in files:
            if not file.shards:
                self.at(file).delete()
        self._write_beside()
        return {"files": sum(bool(file.shards) for file in files), "written": len(again), "bytes": total}

    def _snapshot(self) -> Manifest:
        """The table at one time: not while a run replaces its shards, when a store's folder may lack one."""
        for _ in range(TRIES):
            before, manifest = read_manifest(self.output), up_to_date(self.output)
            if before is read_manifest(self.output) and not (before and before.publishing):
                return manifest
        raise OutputError(f"{self.output}: a run is replacing shards there, or was killed at it; try again, or run the job again")

    def _there(self) -> dict[int, CopyFile]:
        """The files of the copy by number; what a killed one left half written is deleted."""
        files = files_there(self.to, self._fingerprint)
        self.to.delete(self.to.leftovers())
        return files

    @functools.cached_property
    def _fingerprint(self) -> str:
        return str(job_of(self.output).get("fingerprint"))

    def _write(self, file: CopyFile, manifest: Manifest, require: Callable[[], None]) -> None:
        parts = [part for folder in sorted(file.shards) for part in self._parts(manifest, folder)]
        metadata = footer(self._fingerprint, {"shards": dict(file.shards)})
        try:
            schema = schema_of(parts[0])
            tables = (_as_all(part, table, schema) for part, table in scan_files(parts))
            require()
            self.at(file).write_with(lambda sink: write_merged(sink, self.output.format, schema, tables, metadata))
        except OutputError:
            if all(part.place.exists() for part in parts):
                raise
            raise OutputError(f"{self.output}: the table changed while it was copied; run this again, it goes on") from None
        except OSError as e:
            raise OutputError(f"{self.at(file).url}: cannot be written: {e}") from None

    def _parts(self, manifest: Manifest, folder: str) -> list[ChunkFile]:
        first, stop = manifest.slices[folder]
        files = [chunk_file(self.output, path) for path in manifest.files["path"].slice(first, stop - first).to_pylist()]
        return sorted(files, key=lambda file: file.written.first)

    def _write_beside(self) -> None:
        for name in BESIDE:
            if not (at := self.output.place.join(name)).exists():
                continue
            if name != CARD or card_is_ours(self.to) or not self.place.join(CARD).exists():  # one of theirs stays, as in a table
                self.to.write(name, at.read_bytes())


def _as_all(part: ChunkFile, table: pa.Table, schema: pa.Schema) -> pa.Table:
    if table.schema.remove_metadata() != schema.remove_metadata():
        raise OutputError(f"{part.place.url}: its columns are others than those of the table's other files; it cannot be copied")
    return table
