"""Where a job's images are, in one spelling: what makes two configurations the same job, however their paths are written."""

import os
import re
from fnmatch import fnmatchcase
from itertools import takewhile

from levit_batch.config import SourceConfig
from levit_batch.redact import stored_address, without_credentials
from levit_batch.sources.files import expand_braces
from levit_batch.storage import OPTIONS, scheme

PATTERN = re.compile(r"[*?\[{]")
FILE = re.compile(r"\.(parquet|arrow|feather|tar|tgz|gz|zst)$", re.IGNORECASE)


def places_of(source: SourceConfig) -> list[str]:
    """The distinct places of `source.path`, sorted. A repository of the Hub stays as it is written."""
    paths = [source.path] if isinstance(source.path, str) else source.path
    if source.type == "huggingface":
        return [normal(path) if os.path.isdir(path) else path for path in paths]
    return sorted({normal(part) for path in paths for part in path.split("::")})


def normal(path: str) -> str:
    """`path` in one spelling: a local one from the root on, a URL without credentials and without a slash at its end."""
    if scheme(path) in ("", "file"):
        return os.path.abspath(os.path.expanduser(path.removeprefix("file://")))
    return without_credentials(path).rstrip("/")


def whole(paths: str | list[str], kind: str = "") -> str | list[str]:
    """The paths of a configuration as they can be opened again from any folder; one with a secret is masked."""
    if isinstance(paths, list):
        return [whole(path, kind) for path in paths]
    if kind == "huggingface" and not os.path.isdir(paths):
        return stored_address(paths)
    parts = paths.split("::")
    return "::".join(normal(part) if scheme(part) in ("", "file") else stored_address(part) for part in parts)


def base_of(paths: str | list[str]) -> str:
    """The folder from which shards are named: of a file, a folder or a glob; of several, the folder that all share."""
    places = {normal(path) for path in ([paths] if isinstance(paths, str) else paths)}
    folders = [_folder(place).split("/") for place in sorted(places)]
    common = [parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))]
    return "/".join(common) or "/"


def _folder(place: str) -> str:
    options = OPTIONS.search(place)
    bare = place[: options.start()] if options else place
    found = None if scheme(place) in ("http", "https") else PATTERN.search(bare)
    if found:
        return bare[: bare.rfind("/", 0, found.start())]
    local = not scheme(place)
    is_file = os.path.isfile(place) if local else FILE.search(bare.partition("?")[0])
    return bare.rpartition("/")[0] if is_file else bare


def meet(some: list[str], others: list[str]) -> bool:
    """Whether two lists of places have one in common: equal, or one that the other's folder or pattern holds."""
    one, other = ({place for path in places for place in expand_braces(path)} for places in (some, others))
    return bool(one & other) or any(_holds(a, b) or _holds(b, a) for a in some for b in others)


def _holds(one: str, other: str) -> bool:
    return other.startswith(one.rstrip("/") + "/") or fnmatchcase(other, one)
