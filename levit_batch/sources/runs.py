"""A long list of files cut into shards that stay the same when files are added.

A file starts a new shard when the hash of its name says so, wherever it stands; so a new file changes the shard it falls into
(or divides it) and no other. The mean shard has MEAN_ROWS files; it is named after the file it starts with. When that file
is deleted its shard joins the one before: `Source.cuts_shards` tells the job that no rows are lost with the name.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator

MEAN_ROWS = 2048
FIRST = "images"  # the shard before the first such file; every other name ends as an image file does
UNSAFE = re.compile(r"(?:^|/)[_.]|[=\\\x00-\x1f]|//|/$")  # readers skip such folders, or read columns into them


def starts_shard(name: str) -> bool:
    return int.from_bytes(_digest(name)[:4], "big") % MEAN_ROWS == 0


def shard_name(name: str) -> str:
    """The shard that starts with file `name`: called the same, or by a hash where the output could not hold that name."""
    return f"{FIRST}-{_digest(name).hex()}" if UNSAFE.search(name) else name


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def cut_runs(names: Iterable[str]) -> Iterator[tuple[str, int, int]]:
    """Shard name, first and end position of each shard."""
    shard, start, end, used = FIRST, 0, 0, set()
    for i, name in enumerate(names):
        if starts_shard(name) and name not in used:
            if i > start:
                yield shard, start, i
            shard, start = shard_name(name), i
            used.add(name)
        end = i + 1
    if end > start:
        yield shard, start, end
