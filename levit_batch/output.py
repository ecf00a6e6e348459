"""The output folder: what each file in it is called, and what a listing of it says is done.

    data/<shard>/<first row>-<last row>.<version>.parquet   one chunk; it exists, so it is done
    _staging/<shard>/...                                    chunks that will replace a shard readers still see
    _attempts/<shard>/<first row>-<last row>.<version>.parquet  how often a process began this chunk
    _lock/<id>.json                                         who is running (lock.py)
    job.json  runs/<UTC time>.json  metrics.json  report.html  README.md

Names that begin with an underscore are skipped by pyarrow, Spark, `datasets` and by globs below `data/`.
"""

import contextlib
import ctypes
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyarrow import fs

from levit_batch.config import OutputConfig
from levit_batch.errors import OutputError, UserError
from levit_batch.plan import Chunk
from levit_batch.storage import Place, place

ENDINGS = {"parquet": ".parquet", "arrow": ".arrow"}
CHUNK_FILE = re.compile(r"(?P<first>\d{9,})-(?P<last>\d{9,}|end)\.(?P<version>[0-9a-f]{8})\.(?:parquet|arrow)")
UNMEASURED = "_unmeasured"  # there are, or may be, rows that metrics.json and the page do not count yet
OWN_NAMES = ("job.json", "metrics.json", "report.html", UNMEASURED)
CARD_MARK = "<!-- levit-batch:"  # in a README.md that we wrote
AT_FDCWD, RENAME_EXCHANGE = -100, 2


@dataclass(frozen=True, slots=True)
class Written:
    """One chunk file as its name tells it; `stop` is None where the chunk went to its shard's end."""

    first: int
    stop: int | None
    version: str
    name: str

    def covers(self, chunk: Chunk) -> bool:
        """Holds every row of `chunk`, of the same content of the shard."""
        if self.version != chunk.version or self.first > chunk.first:
            return False
        return self.stop is None or (chunk.stop is not None and self.stop >= chunk.stop)


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
        return f"{chunk.shard}/{self.file_name(chunk)}"

    def file_name(self, chunk: Chunk) -> str:
        last = "end" if chunk.stop is None else f"{chunk.stop - 1:09d}"
        return f"{chunk.first:09d}-{last}.{chunk.version}{self.ending}"

    def chunk_place(self, chunk: Chunk) -> Place:
        return self.place.join("_staging" if chunk.staged else "data", self.chunk_name(chunk))

    def written(self, folder: str = "data") -> dict[str, list[Written]]:
        """Chunk files by shard, from one listing of `data` or `_staging`."""
        found: dict[str, list[Written]] = defaultdict(list)
        base = self.place.join(folder)
        for info in base.list():
            shard, _, name = info.path[len(base.path) + 1 :].rpartition("/")
            match = CHUNK_FILE.fullmatch(name)
            if match and info.type == fs.FileType.File:
                stop = None if match["last"] == "end" else int(match["last"]) + 1
                found[shard].append(Written(int(match["first"]), stop, match["version"], name))
        return found

    def read_json(self, name: str) -> dict[str, Any] | None:
        at = self.place.join(name)
        try:
            return json.loads(at.read_bytes())
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

    def require_writable(self) -> None:
        """Raises OutputError when nothing can be written here; finds out by writing."""
        self.write("_attempts/.writable", b"")
        self.delete([self.place.join("_attempts/.writable")])

    def publish(self, shard: str) -> None:
        """Put the staged files of `shard` in the place of those that readers see, in one step where the store can.

        On a local Linux disk the two folders change places in one system call. Elsewhere the old files go first, so that
        a reader never sees a row twice; what is interrupted there is finished by the next run, because the staged
        files are only deleted when all of them have been moved.
        """
        staged, live = self.place.join("_staging", shard), self.place.join("data", shard)
        if self.place.local and live.exists() and _exchange(staged.path, live.path):
            return self._drop(staged)
        self._drop(live)
        for info in staged.list(recursive=False):
            self._copy(info.path, live.join(info.path.rsplit("/", 1)[-1]))
        self._drop(staged)
        if self.place.local:
            _remove_empty(staged.path, self.place.path)

    def stage(self, shard: str, names: Iterable[str]) -> None:
        """Copy live chunk files of `shard` that stay valid next to the staged ones."""
        for name in names:
            self._copy(self.place.join("data", shard, name).path, self.place.join("_staging", shard, name))

    def leftovers(self) -> list[Place]:
        """Temporary files of writers that died."""
        folders = ("data", "_staging", "_attempts") if self.place.local else ()
        found = [info for folder in folders for info in self.place.join(folder).list()]
        return [self._at(info) for info in found if info.base_name.startswith(".") and info.base_name.endswith(".tmp")]

    def own_files(self) -> list[Place]:
        """Every file below the output that this tool wrote: what `--overwrite` may delete."""
        base = self.place
        found = [
            info
            for folder in ("data", "_staging")
            for info in base.join(folder).list()
            if CHUNK_FILE.fullmatch(info.base_name)
        ]
        found += [info for folder in ("_attempts", "runs") for info in base.join(folder).list()]
        found += [base.join(name).info() for name in OWN_NAMES]
        card = base.join("README.md")
        found += [card.info()] if card.exists() and CARD_MARK.encode() in card.read_bytes() else []
        return [self._at(info) for info in found if info.type == fs.FileType.File] + self.leftovers()

    def delete(self, files: Iterable[Place]) -> None:
        """Delete files, and below the output folder the folders that this empties."""
        for file in files:
            file.delete()
            if file.local:
                _remove_empty(os.path.dirname(file.path), self.place.path)

    def _at(self, info: fs.FileInfo) -> Place:
        return self.place.join(info.path[len(self.place.path) + 1 :])

    def _copy(self, source: str, target: Place) -> None:
        if target.local:
            os.makedirs(os.path.dirname(target.path), exist_ok=True)
            os.replace(source, target.path) if "/_staging/" in source else _link(source, target.path)
        else:
            target.filesystem.copy_file(source, target.path)

    def _drop(self, folder: Place) -> None:
        """Delete the chunk files of one shard's folder, and the folder when nothing else is in it."""
        self.delete(self._at(info) for info in folder.list(recursive=False) if CHUNK_FILE.fullmatch(info.base_name))


def _remove_empty(folder: str, root: str) -> None:
    with contextlib.suppress(OSError):
        while folder != root:
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def _link(source: str, target: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.link(source, target)


def _exchange(one: str, other: str) -> bool:
    """Let two folders change places in one step (Linux renameat2); False where the system or disk cannot."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0
