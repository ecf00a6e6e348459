"""Which shards each file of a copy holds (`copy.py`), and which files must be written again."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from levit_batch.errors import OutputError
from levit_batch.table.manifest import Manifest

DIGEST_BYTES = 8


@dataclass(frozen=True)
class State:
    """What a shard is made of now: rows and bytes in all, and a digest of its files' names, runs and sizes."""

    rows: int
    bytes: int
    digest: str


@dataclass(frozen=True)
class CopyFile:
    """One file of a copy: its number, and the digest of each shard in it, by the shard's folder."""

    number: int
    shards: Mapping[str, str]

    @property
    def name(self) -> str:
        return f"{self.number:05d}"


def states(manifest: Manifest) -> dict[str, State]:
    """Every shard of the table that has rows, by its folder."""
    told = {}
    for folder, (first, stop) in manifest.slices.items():
        part = manifest.files.slice(first, stop - first)
        facts = [part[name].to_pylist() for name in ("path", "run", "bytes", "rows")]
        if rows := sum(facts[-1]):
            digest = hashlib.blake2b(repr(facts).encode(), digest_size=DIGEST_BYTES).hexdigest()
            told[folder] = State(rows, sum(size or 0 for size in facts[2]), digest)
    return told


def plan_copy(there: Iterable[CopyFile], table: Mapping[str, State], rows: int, size: int) -> list[CopyFile]:
    """Every file that the copy is to have, of at most `rows` rows and `size` bytes; one without shards is to go.

    A shard stays in its file for good, whatever it grows to: while files are replaced, one after the other, no reader of all of
    them finds a shard twice or not at all. New shards, in the order of their folders, fill the last file, then new ones.
    """
    files = sorted(there, key=lambda file: file.number)
    plan = [CopyFile(file.number, {one: table[one].digest for one in file.shards if one in table}) for file in files]
    new = sorted(table.keys() - {folder for file in plan for folder in file.shards})
    last = plan.pop() if plan else CopyFile(0, {})
    shards, number = dict(last.shards), last.number
    has = [sum(getattr(table[folder], what) for folder in shards) for what in ("rows", "bytes")]
    for folder in new:
        state = table[folder]
        if shards and (has[0] + state.rows > rows or has[1] + state.bytes > size):
            plan.append(CopyFile(number, shards))
            shards, number, has = {}, number + 1, [0, 0]
        shards[folder] = state.digest
        has = [has[0] + state.rows, has[1] + state.bytes]
    return [*plan, CopyFile(number, shards)]


def require_once(files: Iterable[CopyFile], where: str) -> None:
    """Raises OutputError when two files hold the same shard: somebody copied one of them."""
    seen: dict[str, str] = {}
    for file in files:
        for folder in file.shards:
            if (other := seen.setdefault(folder, file.name)) != file.name:
                raise OutputError(f"{where}: {other} and {file.name} both hold {folder}; delete one of the two")
