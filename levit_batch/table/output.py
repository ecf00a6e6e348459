"""The output folder: what each file in it is called, and what a listing of it says is done.

    data/<shard's folder>/<first row>-<last row>.<version>.parquet   one chunk; it exists, so it is done
    _staging/<shard's folder>/...                                    chunks that will replace what readers still see
    _attempts/<shard's folder>/...                                   how often a process began a chunk
    _lock/<id>.json                                         who is running (lock.py)
    job.json  runs/<UTC time>.json  metrics.json  report.html  README.md

Names that begin with an underscore are skipped by pyarrow, Spark, `datasets` and by globs below `data/`. A shard's folder
(`folder_of`) lies in no other's, and no reader takes it for a file or for a column.
"""

import contextlib
import ctypes
import errno
import functools
import hashlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pyarrow import fs

from levit_batch.errors import OutputError, UserError
from levit_batch.job.chunks import Chunk
from levit_batch.job.config import OutputConfig
from levit_batch.storage.place import Place, place
from levit_batch.table.process import started

ENDINGS = {"parquet": ".parquet", "arrow": ".arrow"}
CHUNK_FILE = re.compile(r"(?P<first>\d{9,})-(?P<last>\d{9,}|end)\.(?P<version>[0-9a-f]{8})\.(?:parquet|arrow)")
FOLDER = re.compile(r"(?:[a-z0-9-]{1,60}-)?[0-9a-f]{16}")
TEMPORARY = re.compile(r"\..+\.(?P<pid>\d+)\.[0-9a-f]{8}\.tmp")  # of `Place.write_bytes`
UNMEASURED = "_unmeasured"  # there are, or may be, rows that metrics.json and the page do not count yet
SHARDS = "_shards.parquet"  # what the source's footers said (sources/footers.py)
OWN_NAMES = ("job.json", "metrics.json", "report.html", UNMEASURED, SHARDS)
CARD_MARK = "<!-- levit-batch:"  # in a README.md that we wrote
AT_FDCWD, RENAME_EXCHANGE = -100, 2
NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP}  # on this system or disk


@dataclass(frozen=True, slots=True)
class Written:
    """One chunk file as its name tells it; `stop` is None where the chunk went to its shard's end."""

    first: int
    stop: int | None
    version: str
    name: str


@functools.lru_cache(65_536)
def folder_of(shard: str) -> str:
    """The folder of a shard's files: a readable part of the shard's name, and a hash of all of it.

    So it is the shard's own on every disk and store, whatever the name holds, however long it is, and whether or not case
    counts; it ends as no file does and looks like no `column=value`.
    """
    readable = re.sub(r"[^a-z0-9]+", "-", os.path.splitext(shard)[0].lower())[-60:].strip("-")
    digest = hashlib.blake2b(shard.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{readable}-{digest}" if readable else digest


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
        return self.place.join("_staging" if chunk.staged else "data", self.chunk_name(chunk))

    def written(self, folder: str = "data") -> dict[str, list[Written]]:
        """Chunk files by the folder of their shard, from one listing of `data`, `_staging` or `_attempts`."""
        files: dict[str, list[Written]] = defaultdict(list)
        base = self.place.join(folder)
        for info in base.list():
            shard, _, name = info.path[len(base.path) + 1 :].rpartition("/")
            match = CHUNK_FILE.fullmatch(name)
            if match and info.type == fs.FileType.File and FOLDER.fullmatch(shard):
                stop = None if match["last"] == "end" else int(match["last"]) + 1
                files[shard].append(Written(int(match["first"]), stop, match["version"], name))
        return files

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

    def publish(self, folder: str, names: frozenset[str]) -> None:
        """Make `names` the chunk files that readers see of one shard, from those staged and those seen already.

        Every one of them must be there, or nothing is touched; and what is one of them is never deleted, so that also two runs
        that publish the same shard side by side lose nothing. On a local Linux disk the two folders change places in one
        system call. Elsewhere the old files go first, so that no reader sees a row twice; what is interrupted there is
        finished by the next run, because staged files only go when all of them are in their place.

        Raises OutputError when one of them is missing, or when the table was changed meanwhile.
        """
        staged, live = self.place.join("_staging", folder), self.place.join("data", folder)
        self._require(names, self._names(staged) | self._names(live), folder)
        try:
            if self._names(live) != names:
                (self._publish_local if self.place.local else self._publish_store)(staged, live, names)
            self._require(names, self._names(live), folder)
            self._drop(staged)
        except OSError as e:
            raise OutputError(f"output.path: {live.url} cannot be replaced: {e}; run again to go on") from None

    def _publish_local(self, staged: Place, live: Place, names: frozenset[str]) -> None:
        seen = self._names(live)
        if seen and names - seen and self._linked(staged, live, names):
            self.delete(staged.join(name) for name in self._names(staged) - names)
            self._require(names, self._names(staged), os.path.basename(live.path))
            if _exchange(staged.path, live.path):
                return self._bring_back(staged, live, names)
        self.delete(live.join(name) for name in seen - names)
        for name in names - seen:
            os.makedirs(live.path, exist_ok=True)
            os.replace(staged.join(name).path, live.join(name).path)

    def _linked(self, staged: Place, live: Place, names: frozenset[str]) -> bool:
        """Have those of the files that readers see already stand among the staged ones, too; False where a disk has no links."""
        try:
            for name in names - self._names(staged):
                os.link(live.join(name).path, staged.join(name).path)
        except OSError as e:
            if e.errno not in {*NO_EXCHANGE, errno.EPERM, errno.EMLINK}:
                raise
            return False
        return True

    def _bring_back(self, staged: Place, live: Place, names: frozenset[str]) -> None:
        """After the exchange: delete the old files, and put what is not ours back beside the new ones."""
        for info in staged.list(recursive=False):
            name = info.base_name
            if CHUNK_FILE.fullmatch(name) is None:
                os.replace(info.path, live.join(name).path)
            elif name not in names:
                os.unlink(info.path)

    def _publish_store(self, staged: Place, live: Place, names: frozenset[str]) -> None:
        self.delete(live.join(name) for name in self._names(live) - names)
        for name in names - self._names(live):
            live.filesystem.copy_file(staged.join(name).path, live.join(name).path)

    def _names(self, folder: Place) -> set[str]:
        return {info.base_name for info in folder.list(recursive=False) if CHUNK_FILE.fullmatch(info.base_name)}

    def _require(self, names: frozenset[str], there: set[str], folder: str) -> None:
        if missing := sorted(names - there):
            raise OutputError(
                f"output.path: {len(missing)} of {len(names)} files of {folder} are not there any more ({missing[0]}): another "
                "run changed this output; nothing was replaced, run again"
            )

    def leftovers(self) -> list[Place]:
        """Temporary files of writers that died."""
        if not self.place.local:
            return []
        infos = self.place.list(recursive=False)
        for folder in ("data", "_staging", "_attempts", "_lock", "runs"):
            infos += self.place.join(folder).list()
        named = [(TEMPORARY.fullmatch(info.base_name), info) for info in infos]
        return [self._at(info) for match, info in named if match and started(int(match["pid"])) is None]

    def own_files(self) -> list[Place]:
        """Every file below the output that this tool wrote: what `--overwrite` may delete."""
        base = self.place
        infos = [
            info
            for folder in ("data", "_staging")
            for info in base.join(folder).list()
            if CHUNK_FILE.fullmatch(info.base_name)
        ]
        infos += [info for folder in ("_attempts", "runs") for info in base.join(folder).list()]
        infos += [base.join(name).info() for name in OWN_NAMES]
        card = base.join("README.md")
        infos += [card.info()] if card.exists() and CARD_MARK.encode() in card.read_bytes() else []
        return [self._at(info) for info in infos if info.type == fs.FileType.File] + self.leftovers()

    def delete(self, files: Iterable[Place]) -> None:
        """Delete files, and below the output folder the folders that this empties."""
        for file in files:
            file.delete()
            if file.local:
                _remove_empty(os.path.dirname(file.path), self.place.path)

    def _at(self, info: fs.FileInfo) -> Place:
        return self.place.join(info.path[len(self.place.path) + 1 :])

    def _drop(self, folder: Place) -> None:
        """Delete the chunk files of one shard's folder, and the folder when nothing else is in it."""
        self.delete(folder.join(name) for name in self._names(folder))
        if folder.local:
            _remove_empty(folder.path, self.place.path)


def _remove_empty(folder: str, root: str) -> None:
    with contextlib.suppress(OSError):
        while folder != root:
            os.rmdir(folder)
            folder = os.path.dirname(folder)


def _exchange(one: str, other: str) -> bool:
    """Let two folders change places in one step (Linux renameat2); False where the system or disk cannot.

    Raises OSError for anything else: then neither is touched.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    failure = ctypes.get_errno()
    if failure in NO_EXCHANGE:
        return False
    raise OSError(failure, os.strerror(failure), one)
