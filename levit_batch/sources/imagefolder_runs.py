"""A long list of files cut into shards that stay the same when files are added.

A file starts a new shard when the hash of its name says so, wherever it stands; so a new file changes the shard it falls into
(or divides it) and no other. The mean shard has MEAN_ROWS files; it is called as the file it starts with. When that file
is deleted its shard joins the one before: `Source.cuts_shards` tells the job that rows move from shard to shard.
"""

import hashlib
from collections.abc import Iterable, Iterator

MEAN_ROWS = 2048
FIRST = "images"  # the shard before the first such file; every other name ends as an image file does


def starts_shard(name: str) -> bool:
    return int.from_bytes(_digest(name)[:4], "big") % MEAN_ROWS == 0


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def cut_runs(names: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """Shard name, first and end position of each shard."""
    shard, start, end, used = FIRST, 0, 0, set()
    for i, name in enumerate(names):
        if starts_shard(name) and name not in used:
            if i > start:
                yield shard, start, i
            shard, start = name, i
            used.add(name)
        end = i + 1
    if end > start:
        yield shard, start, end
