"""The output folder: what each file in it is called, and what a listing of it says is done.

    data/<shard's folder>/<first row>-<last row>.<version>.parquet   one chunk; it exists, so it is done
    files.parquet                                                    all of them, by name: one snapshot (manifest.py)
    _staging/<shard's folder>/...                                    chunks that will replace what readers still see
    _swap/<shard's folder>/...                                       for a moment: old files on their way out
    _attempts/<shard's folder>/...                                   how often a process began a chunk
    _lock/<id>.json                                         who is running (lock.py)
    _review/<state>/...                                     what a review under way has done (results/near/kept.py)
    job.json  runs/<UTC time>.json  metrics.json  samples.parquet  review.parquet  report.html  README.md

Names that begin with an underscore are skipped by pyarrow, Spark, `datasets` and by globs below `data/`. A shard's folder
(`folder_of`) lies in no other's, and no reader takes it for a file or for a column.
"""

import contextlib
import functools
import hashlib
import json
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pyarrow import fs

from levit_batch.errors import OutputError, UserError
from levit_batch.job.chunks import Chunk
from levit_batch.job.config import OutputConfig
from levit_batch.storage.place import Place, place
from levit_batch.table.process import started

ENDINGS = {"parquet": ".parquet", "arrow": ".arrow"}
CHUNK_FILE = re.compile(r"(?P<first>\d{9,})-(?P<last>\d{9,}|end)\.(?P<version>[0-9a-f]{8})\.(?:parquet|arrow)")
COPY_FILE = re.compile(r"(?P<number>\d{5,})\.(?:parquet|arrow)")  # in `data` of a copy (copy.py), where no shard has a folder
FOLDER = re.compile(r"(?:[a-z0-9-]{1,60}-)?[0-9a-f]{16}")
TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp")  # of `Place.write_bytes`
DATA, STAGING, SWAP, MANIFEST = "data", "_staging", "_swap", "files.parquet"
SAMPLES = "samples.parquet"  # rows worth a look, with small pictures
UNMEASURED = "_unmeasured"  # there are, or may be, rows that metrics.json and the page do not count yet
REVIEW = "review.parquet"  # copies, outliers and suspected labels (results/near/review.py)
REVIEWING = "_review"  # what of it is done, while it is made
SHARDS = "_shards.parquet"  # what the source's footers said (sources/footers.py)
OWN_NAMES = (SAMPLES, REVIEW, "job.json", "report.html", UNMEASURED, SHARDS)
CARD_MARK = "<!-- levit-batch:"  # in a README.md that we wrote


@dataclass(frozen=True, slots=True)
class Written:
    """One chunk file as its name tells it; `stop` is None where the chunk went to its shard's end."""

    first: int
    stop: int | None
    version: str
    name: str
    size: int | None = field(default=None, compare=False)  # bytes, and when it was written (ns), where a listing told
    changed: int = field(default=0, compare=False)


@functools.lru_cache(65_536)
def folder_of(shard: str) -> str:
    """The folder of a shard's files: a readable part of the shard's name, and a hash of all of it.

    So it is the shard's own on every disk and store, whatever the name holds, however long it is, and whether or not case
    counts; it ends as no file does and looks like no `column=value`.
    """
    readable = re.sub(r"[^a-z0-9]+", "-", os.path.splitext(shard)[0].lower())[-60:].strip("-")
    digest = hashlib.blake2b(shard.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{readable}-{digest}" if readable else digest


def written_of(name: str, size: int | None = None, changed: int = 0) -> Written | None:
    """What a file's name tells; None for a file that is no chunk's."""
    match = CHUNK_FILE.fullmatch(name)
    stop = None if not match or match["last"] == "end" else int(match["last"]) + 1
    return Written(int(match["first"]), stop, match["version"], name, size, changed) if match else None


def _listed(info: fs.FileInfo) -> Written | None:
    file = info.type == fs.FileType.File
    return written_of(info.base_name, info.size, info.mtime_ns or 0) if file else None


class Output:
    """The folder (or object-store prefix) a job writes into. Pickles."""

    def __init__(self, config: OutputConfig):
        try:
            self.place = place(config.path)
        except UserError as e:
            raise OutputError(f"output.path: {e}") from None
        self.format = config.format
        self.ending = ENDINGS[config.format]

    def __str__(self) -> str:
        return self.place.url

    def chunk_name(self, chunk: Chunk) -> str:
        """The chunk's path below `data/` or `_staging/`."""
        return f"{folder_of(chunk.shard)}/{self.file_name(chunk)}"

    def file_name(self, chunk: Chunk) -> str:
        last = "end" if chunk.stop is None else f"{chunk.stop - 1:09d}"
        return f"{chunk.first:09d}-{last}.{chunk.version}{self.ending}"

    def chunk_place(self, chunk: Chunk) -> Place:
        return self.place.join(STAGING if chunk.staged else DATA, self.chunk_name(chunk))

    def written(self, folder: str = DATA) -> dict[str, list[Written]]:
        """Chunk files by the folder of their shard, from one listing of `data`, `_staging` or `_attempts`."""
        files: dict[str, list[Written]] = defaultdict(list)
        base = self.place.join(folder)
        for info in base.list():
            shard, _, name = info.path[len(base.path) + 1 :].rpartition("/")
            if FOLDER.fullmatch(shard) and (file := _listed(info)):
                files[shard].append(file)
        return files

    def written_in(self, folder: str) -> list[Written]:
        """The files of one shard that readers see."""
        return [file for info in self.place.join(DATA, folder).list(recursive=False) if (file := _listed(info))]

    def read_json(self, name: str) -> dict[str, Any] | None:
        at = self.place.join(name)
        try:
            value = json.loads(at.read_bytes())
            if not isinstance(value, dict):
                raise ValueError("no object")
            return value
        except FileNotFoundError:
            return None
        except ValueError as e:
            raise OutputError(f"{at.url}: not valid JSON ({e}); delete it, or use another output.path") from None
        except OSError as e:
            raise OutputError(f"{at.url}: cannot be read: {e}") from None

    def write_json(self, name: str, value: dict[str, Any]) -> None:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False, default=str) + "\n"
        self.write(name, text.encode())

    def write(self, name: str, data: bytes) -> None:
        try:
            self.place.join(name).write_bytes(data)
        except OSError as e:
            raise OutputError(f"output.path: {self.place.join(name).url} cannot be written: {e}") from None

    def mark(self, mark: bytes | None = None) -> bytes:
        """Say that the table may be another than was measured: with `mark`, or with one that nobody else has; returns it."""
        mark = secrets.token_bytes(8) if mark is None else mark
        self.write(UNMEASURED, mark)
        return mark

    def marked(self) -> bytes | None:
        """Who said so last; None: nobody."""
        try:
            return self.place.join(UNMEASURED).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as e:
            raise OutputError(f"{self}: cannot be read: {e}") from None

    def unmark(self, mark: bytes | None) -> None:
        """Measured, as far as whoever left `mark` could know: another's, that came meanwhile, stays for the next run."""
        if mark is not None and self.marked() == mark:
            self.place.join(UNMEASURED).delete()

    def require_writable(self) -> None:
        """Raises OutputError when nothing can be written here; finds out by writing."""
        self.write("_attempts/.writable", b"")
        self.delete([self.place.join("_attempts/.writable")])

    def leftovers(self, changed: Iterable[str] | None = None) -> list[Place]:
        """Temporary files of writers that died. changed: the only folders of `data` in which there may be one."""
        if not self.place.local:
            return []
        infos = self.place.list(recursive=False)
        data = (DATA,) if changed is None else (f"{DATA}/{folder}" for folder in changed)
        for folder in (*data, STAGING, "_attempts", "_lock", REVIEWING, "runs"):
            infos += self.place.join(folder).list()
        old = [info for info in self.place.join(SWAP).list() if CHUNK_FILE.fullmatch(info.base_name)]
        return [self._at(info) for info in left_by_dead(infos) + old]

    def tidy(self, changed: Iterable[str] | None = None) -> None:
        """Remove the folders that a run left empty which died, or could not, between emptying and removing them.

        changed: the only folders of `data` that may be empty.
        """
        if not self.place.local:
            return
        data = self.place.join(DATA)
        folders = (info.base_name for info in data.list(recursive=False)) if changed is None else changed
        empty = [data.join(folder).path for folder in folders if FOLDER.fullmatch(folder)]
        for folder in (SWAP, STAGING, "_attempts"):
            empty += [at for at, _, files in os.walk(self.place.join(folder).path, topdown=False) if not files]
        for at in empty:
            with contextlib.suppress(OSError):  # it is not empty
                os.rmdir(at)

    def own_files(self) -> list[Place]:
        """Every file below the output that this tool wrote: what `--overwrite` may delete; first what speaks of the others.

        Raises OutputError where a copy lies (copy.py): rows labelled beside it would be there twice.
        """
        base = self.place
        if any(COPY_FILE.fullmatch(info.base_name) for info in base.join(DATA).list(recursive=False)):
            raise OutputError(f"output.path: {self} holds a copy (`compact --to`), where nobody labels; use another folder")
        infos = [base.join(name).info() for name in (MANIFEST, "metrics.json")]
        infos += [
            info
            for folder in (DATA, STAGING)
            for info in base.join(folder).list()
            if CHUNK_FILE.fullmatch(info.base_name)
        ]
        infos += [info for folder in ("_attempts", REVIEWING, "runs") for info in base.join(folder).list()]
        infos += [base.join(name).info() for name in OWN_NAMES]
        card = base.join("README.md")
        infos += [card.info()] if card.exists() and CARD_MARK.encode() in card.read_bytes() else []
        return [self._at(info) for info in infos if info.type == fs.FileType.File] + self.leftovers()

    def delete(self, files: Iterable[Place]) -> None:
        """Delete files, and below the output folder the folders that this empties."""
        for file in files:
            file.delete()
            if file.local:
                remove_empty(os.path.dirname(file.path), self.place.path)

    def _at(self, info: fs.FileInfo) -> Place:
        return self.place.join(info.path[len(self.place.path) + 1 :])


def left_by_dead(infos: Iterable[fs.FileInfo]) -> list[fs.FileInfo]:
    """Those of these files that a writer (`Place.write_bytes`) left half written whose process is no more."""
    named = ((TEMPORARY.fullmatch(info.base_name), info) for info in infos)
    return [info for match, info in named if match and started(int(match["pid"])) is None]


def remove_empty(folder: str, root: str) -> None:
    with contextlib.suppress(OSError):
        while folder != root:
            os.rmdir(folder)
            folder = os.path.dirname(folder)
