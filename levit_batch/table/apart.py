"""Whether what is to be written would lie in an output, or among what that is made from."""

import os
import re
from pathlib import PurePath
from urllib.parse import parse_qs

from fsspec.utils import glob_translate

from levit_batch.storage.find import Listed, configured
from levit_batch.storage.place import Place, place
from levit_batch.storage.url import scheme, split_options
from levit_batch.table.output import Output
from levit_batch.table.read import job_of


def lies_in(at: Place, other: Place) -> bool:
    """Whether `at` is `other`, or lies below it: by links, too, and with whatever options to reach a bucket."""
    if at.local and other.local:
        return PurePath(os.path.realpath(at.path)).is_relative_to(os.path.realpath(other.path))
    return _store(at) == _store(other) and PurePath(at.path).is_relative_to(other.path)


def is_of_source(at: Place, output: Output) -> bool:
    """Whether the file `at` is one of those that `output` is made from, or would be taken for one by the next run."""
    return any(_holds(one, at) for one in configured(_reachable(at, output)))


def _store(at: Place) -> tuple[str, list[str]]:
    """What a bucket's name is looked for in."""
    bare, options = split_options(at.url)
    return scheme(bare), parse_qs(options.removeprefix("?")).get("endpoint_override", [])


def _reachable(at: Place, output: Output) -> list[str]:
    """The places of the source that are on the disk, or the kind of store, that `at` is on."""
    paths = job_of(output)["config"]["source"]["path"]
    parts = [part for path in ([paths] if isinstance(paths, str) else paths) for part in path.split("::")]
    return [part for part in parts if (os.path.isabs(part) if at.local else scheme(part) == scheme(at.url))]


def _holds(one: Listed, at: Place) -> bool:
    """Whether a place of the source is `at`, or is a folder or pattern that would find a file there."""
    base = place(one.url)
    if not lies_in(at, base):
        return False
    paths = [os.path.realpath(each.path) if at.local else each.path for each in (at, base)]
    return one.pattern is None or bool(re.match(glob_translate(one.pattern), os.path.relpath(*paths)))
