"""What readers see of an output, held against what the source was: every row of every file, whole tables, what must stay."""

import copy
import glob
import io
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from levit_batch.job.config import OutputConfig
from levit_batch.table.manifest import Manifest, read_manifest
from levit_batch.table.output import CHUNK_FILE, MANIFEST, Output, folder_of
from tests.support.nights_images import BROKEN, MISSING, NONE, Model
from tests.support.nights_source import Row, Rows, World
from tests.support.nights_stores import Disk

CLOSE = 0.02  # embeddings are float16; those of two images differ by far more
KINDS = {BROKEN: {"decode"}, NONE: {"null", "missing"}, MISSING: {"missing"}}
LATER = {
    "decode",
    "missing",
}  # the errors of an image that came later, or was mended, and is looked at again when asked to


class WrongError(AssertionError):
    """The table is not what it must be."""


@dataclass(frozen=True)
class Piece:
    """One visible file: rows `first` to `stop` of a version of a shard."""

    folder: str
    name: str
    version: str
    first: int
    stop: int

    @property
    def rows(self) -> range:
        return range(self.first, self.stop)


class Table:
    """The visible files of an output; each row of each is what its shard had in that version, or it is wrong.

    known: the rows of each version of each shard, by (folder, version); names: the shards of the folders.
    """

    def __init__(
        self, store: Disk, world: World, model: Model, known: dict[tuple[str, str], Rows], names: dict[str, str]
    ):
        self.store, self.world, self.model, self.known, self.names = store, world, model, known, names
        self.pieces: dict[str, list[Piece]] = {}
        self.bad: set[tuple[str, Row]] = set()  # shard and row of each error
        self.errors = 0
        for path, info in sorted(store.files().items()):
            if path.startswith("data/") and CHUNK_FILE.fullmatch(info.base_name):
                piece = self._read(path, store.root.join(path).read_bytes())
                self.pieces.setdefault(piece.folder, []).append(piece)
            elif path.startswith("data/") and not info.base_name.endswith(".tmp"):
                raise WrongError(f"{path} is no file of ours")

        self.committed = self._committed()

    def _committed(self) -> dict[str, set[Piece]]:
        """Of a night that was killed while it replaced shards: what the next one first makes of their folders."""
        manifest = self._manifest()
        pieces = {folder: set() for folder in (manifest.publishing if manifest else ())}
        for entry in manifest.files.to_pylist() if pieces else ():
            _, folder, name = entry["path"].split("/")
            if folder in pieces:
                pieces[folder].add(Piece(folder, name, entry["version"], entry["first"], entry["last"] + 1))
        return pieces

    def _read(self, path: str, data: bytes) -> Piece:
        _, folder, name = path.split("/")
        told = CHUNK_FILE.fullmatch(name)
        rows = self.known.get((folder, told["version"]))
        if rows is None:
            raise WrongError(f"{path}: there never was such a version of {self.names.get(folder, 'any shard')}")
        first, stop = int(told["first"]), len(rows) if told["last"] == "end" else int(told["last"]) + 1
        table = pq.read_table(io.BytesIO(data)) if name.endswith(".parquet") else pa.ipc.open_stream(data).read_all()
        try:
            self._compare(table, self.names[folder], first, rows[first:stop], stop - first)
        except WrongError as e:
            raise WrongError(f"{path} ({self.names[folder]}): {e}") from None
        return Piece(folder, name, told["version"], first, stop)

    def _compare(self, table: pa.Table, shard: str, first: int, rows: Rows, count: int) -> None:
        if not table.num_rows == count == len(rows):
            raise WrongError(f"{table.num_rows} rows, {count} by its name, of {len(rows)} in the source")
        self._same("shard", table["shard"].to_pylist(), [shard] * count)
        self._same("row", table["row"].to_pylist(), list(range(first, first + count)))
        key = self.world.key_column
        self._same(key, table[key].to_pylist(), [row.key for row in rows])
        errors = table["error"].to_pylist()
        for error, row in zip(errors, rows, strict=True):
            if (error and error.partition(":")[0]) not in self._kinds(row):
                raise WrongError(f"{row} has the error {error!r}")
        self.bad |= {(shard, row) for row, error in zip(rows, errors, strict=True) if error}
        self.errors += sum(error is not None for error in errors)
        good = [i for i, error in enumerate(errors) if error is None]
        if good:
            labels, embeddings = self.model.answer([rows[i].image for i in good])
            seen = np.array(table["embedding"].take(pa.array(good)).to_pylist(), np.float32)
            if (far := np.abs(seen - embeddings).max(-1) > CLOSE).any():
                raise WrongError(f"the embedding of {rows[good[int(far.argmax())]]} is another image's")
            self._same("label", table["label"].take(pa.array(good)).to_pylist(), labels.tolist())

    def _kinds(self, row: Row) -> set[str | None]:
        return {None, *LATER} if row.image in self.world.unsure else KINDS.get(row.image, {None})

    @staticmethod
    def _same(what: str, seen: list, wanted: list) -> None:
        if seen != wanted:
            i = next(i for i, two in enumerate(zip(seen, wanted, strict=True)) if two[0] != two[1])
            raise WrongError(f"{what} of row {i} is {seen[i]!r}, not {wanted[i]!r}")

    @property
    def rows(self) -> int:
        return sum(len(piece.rows) for pieces in self.pieces.values() for piece in pieces)

    def require_read_alike(self) -> None:
        """Whoever reads the folder, or globs in it, sees these rows and columns."""
        if not self.store.root.local or not self.pieces:
            return
        files = glob.glob(f"{self.store.url}/data/**/*.parquet", recursive=True)
        files += glob.glob(f"{self.store.url}/data/**/*.arrow", recursive=True)
        if len(files) != sum(map(len, self.pieces.values())):
            raise WrongError(f"a glob finds {files}")
        if files[0].endswith(".parquet"):
            read = pyarrow.dataset.dataset(f"{self.store.url}/data", partitioning="hive")
            if read.count_rows() != self.rows or read.schema.names != pq.read_schema(files[0]).names:
                raise WrongError(f"pyarrow reads {read.count_rows()} rows of {self.rows}, with {read.schema.names}")

    def _manifest(self) -> Manifest | None:
        return read_manifest(Output(OutputConfig(path=self.store.url)))

    def require_manifest(self, exact: bool) -> None:
        """Whoever reads the files that `files.parquet` names sees each row once, as its shard had it.

        exact: they are the ones that a listing shows, and its sums are theirs.
        """
        if not self.store.root.join(MANIFEST).exists():
            return
        manifest, reader = self._manifest(), copy.copy(self)
        reader.bad, reader.errors = set(), 0
        pieces: dict[str, list[Piece]] = {}
        for entry in manifest.files.to_pylist():
            path = self.store.root.join(entry["path"])
            if not path.exists():
                raise WrongError(f"{MANIFEST} names {entry['path']}, which is not there")
            piece = reader._read(f"data/{entry['path'].partition('/')[2]}", path.read_bytes())
            if (piece.first, piece.stop, len(piece.rows), self.names[piece.folder], piece.version) != (
                entry["first"], entry["last"] + 1, entry["rows"], entry["shard"], entry["version"]
            ):  # fmt: skip
                raise WrongError(f"{MANIFEST} says {entry}")
            pieces.setdefault(piece.folder, []).append(piece)
        if exact:
            seen = {(p.folder, p.name) for part in self.pieces.values() for p in part}
            if seen != (named := {(p.folder, p.name) for part in pieces.values() for p in part}):
                raise WrongError(f"{MANIFEST} has {sorted(named - seen)} too much, and lacks {sorted(seen - named)}")
            errors = sum(entry["errors"] for entry in manifest.files.to_pylist())
            if (manifest.sums["rows"], sum(manifest.sums["errors"].values()), errors) != (self.rows, self.errors, self.errors):
                raise WrongError(f"{MANIFEST} counts {manifest.sums['rows']} rows, {manifest.sums['errors']}, {errors}")

    def of(self, folder: str, version: str | None = None) -> set[int]:
        """The rows of a shard (of one version of it) that readers see."""
        return {i for p in self.pieces.get(folder, []) if version in (None, p.version) for i in p.rows}

    def keys(self) -> set[str]:
        return {
            self.known[p.folder, p.version][i].key for pieces in self.pieces.values() for p in pieces for i in p.rows
        }

    def same(self, after: "Table", folder: str) -> bool:
        """Whether a folder is as it was, or as a killed night before had already decided."""
        now = set(after.pieces.get(folder, []))
        return now == set(self.pieces.get(folder, [])) or now == self.committed.get(folder)

    def doubled(self, folders: Iterable[str]) -> list[str]:
        """Pairs of files of a shard that hold the same row."""
        found = []
        for folder in folders:
            pieces = sorted(self.pieces.get(folder, []), key=lambda piece: (piece.first, piece.stop))
            for one, other in zip(pieces, pieces[1:], strict=False):
                if other.first < one.stop:
                    found.append(f"{self.names[folder]}: {one.name} and {other.name}")
        return found

    def require_once(self, folders: Iterable[str] | None = None) -> None:
        """No row of a shard (of these shards) stands in two files."""
        if found := self.doubled(self.pieces if folders is None else folders):
            raise WrongError(f"the same rows stand in two files: {found}")

    def require_whole(self, shards: dict[str, str]) -> None:
        """Of each of these shards, every row of this version, once, and nothing else. shards: versions by name."""
        self.require_once(map(folder_of, shards))
        for name, version in shards.items():
            folder = folder_of(name)
            wanted = set(range(len(self.known[folder, version])))
            if other := [p.name for p in self.pieces.get(folder, []) if p.version != version]:
                raise WrongError(f"{name}: {other} of an older version are still there")
            if self.of(folder) != wanted:
                raise WrongError(f"{name}: rows {sorted(self.of(folder))} of {len(wanted)}")


def require_kept(before: Table, after: Table, shards: dict[str, str], may_go: set[str], in_one_step: bool) -> None:
    """Nothing is lost that was there `before`, unless its shard changed, and what changed is replaced as a whole.

    shards: versions of tonight's plan, by name. may_go: folders of what the source no longer has.
    in_one_step: nothing is ever seen half replaced.
    """
    planned = {folder_of(name): version for name, version in shards.items()}
    for folder, pieces in before.pieces.items():
        if before.same(after, folder) or (folder in before.committed and not in_one_step):
            continue
        pieces = before.committed.get(folder, pieces)
        name, version = before.names[folder], planned.get(folder)
        if version is None:
            if folder not in may_go:
                raise WrongError(f"{name}: its files changed, though the plan does not hold it")
            continue
        whole = {piece.version for piece in pieces} == {version}
        if not in_one_step and not whole:
            continue
        coming = after.committed.get(folder, ())  # the next night first brings these, whatever it finds
        seen = after.of(folder, version) | {i for piece in coming if piece.version == version for i in piece.rows}
        if gone := {i for piece in pieces if piece.version == version for i in piece.rows} - seen:
            raise WrongError(f"{name}: rows {sorted(gone)} of its present version are gone")
        kept = all(piece in after.pieces.get(folder, []) for piece in pieces if piece.version != version)
        wanted = len(after.known[folder, version])
        if not kept and not set(range(wanted)) <= seen:
            raise WrongError(f"{name}: older rows are gone, and only {sorted(seen)} of {wanted} are there anew")
