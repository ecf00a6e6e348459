"""A file that a command is told to write (`--out`, `--html`): checked before any work, so that it costs nobody what is there.

A table replaces nothing; a page may replace an earlier page. Neither is ever written among the images, or into an output.
"""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

from pyarrow import fs

from levit_batch.errors import ConfigError, OutputError, brief
from levit_batch.storage.place import Place, place
from levit_batch.storage.stores import FSSPEC
from levit_batch.storage.url import scheme
from levit_batch.table.apart import is_of_source, lies_in
from levit_batch.table.output import Output

PAGE = (".html", ".htm")


@dataclass(frozen=True)
class NewFile:
    """The file at `place`, which `option` (`--out`) gave as `path`."""

    option: str
    path: str
    place: Place

    def write_with(self, write: Callable[[BinaryIO], Any]) -> None:
        """Write the file in one step. Raises OutputError when it cannot be written."""
        try:
            self.place.write_with(write)
        except OSError as e:
            raise _unwritable(self, e) from None


def new_file(option: str, path: str, endings: tuple[str, ...], *outputs: Output) -> NewFile:
    """The file that `option` names, about to be made from `outputs`.

    Raises ConfigError for another ending or the web, and OutputError where it is there already (save a page), lies in one of
    the outputs or among what they are made from, or cannot be written.
    """
    if not path.lower().endswith(endings):
        raise ConfigError(f"{option} {path}: name a file that ends in {' or '.join(endings)}")
    if scheme(path) in FSSPEC:
        raise ConfigError(f"{option} {path}: the web and the Hub can only be read; name a file on a disk or in a store")
    file = NewFile(option, path, place(path))
    for output in outputs:
        _require_apart(file, output)
    try:
        there = file.place.info().type
        if there not in (fs.FileType.NotFound, fs.FileType.File) or (there == fs.FileType.File and endings != PAGE):
            raise OutputError(f"{option} {path}: is there already; name another file, or delete it first")
        if file.place.local:
            folder = os.path.dirname(file.place.path)
            os.makedirs(folder, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()  # a folder that takes nothing is known before minutes of work
    except OSError as e:
        raise _unwritable(file, e) from None
    return file


def new_page(path: str, *outputs: Output) -> NewFile:
    """`new_file` of `--html`."""
    return new_file("--html", path, PAGE, *outputs)


def _unwritable(file: NewFile, error: OSError) -> OutputError:
    return OutputError(f"{file.option} {file.path}: cannot be written: {error.strerror or brief(error)}")


def _require_apart(file: NewFile, output: Output) -> None:
    if lies_in(file.place, output.place):
        raise OutputError(f"{file.option} {file.path}: lies in the output {output}; name a file elsewhere")
    if is_of_source(file.place, output):
        raise OutputError(
            f"{file.option} {file.path}: lies among what {output} is made from: it is a file of the source, or the next run "
            "would take it for one; name a file elsewhere"
        )
