"""Where a job's images are, in one spelling: what makes two configurations the same job, however their paths are written."""

import os
from fnmatch import fnmatchcase

from levit_batch.job.config import SourceConfig
from levit_batch.storage.find import expand_braces
from levit_batch.storage.redact import stored_address, without_credentials
from levit_batch.storage.url import scheme


def places_of(source: SourceConfig) -> list[str]:
    """The distinct places of `source.path`, sorted. A repository of the Hub stays as it is written."""
    if source.type == "huggingface":
        return [normal(path) if os.path.isdir(path) else path for path in paths_of(source)]
    return sorted({normal(path) for path in paths_of(source)})


def paths_of(source: SourceConfig) -> list[str]:
    """The places of `source.path` as they are written."""
    paths = [source.path] if isinstance(source.path, str) else source.path
    return paths if source.type == "huggingface" else [part for path in paths for part in path.split("::")]


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


def meet(some: list[str], others: list[str]) -> bool:
    """Whether two lists of places have one in common: equal, or one that the other's folder or pattern holds."""
    one, other = ({place for path in places for place in expand_braces(path)} for places in (some, others))
    return bool(one & other) or any(_holds(a, b) or _holds(b, a) for a in some for b in others)


def _holds(one: str, other: str) -> bool:
    return other.startswith(one.rstrip("/") + "/") or fnmatchcase(other, one)
