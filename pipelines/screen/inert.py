"""Text that a terminal only shows: names of classes, paths and errors come from others, and may hold what it would obey."""

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# Control characters, what turns the direction of writing, other line ends, and bytes of paths that are not UTF-8.
ACTIVE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
BREAKS = re.compile(r"[\t\n]")


def inert(text: str) -> str:
    """`text` with what a terminal would obey, ends of lines and tabs apart, as \\uXXXX, which JSON reads back; no colours."""
    return ACTIVE.sub(_escaped, COLOUR.sub("", text))


def inert_cell(text: str) -> str:
    """`text` for one cell of a table: its ends of lines and tabs are escaped, too."""
    return BREAKS.sub(_escaped, inert(text))


def _escaped(match: re.Match) -> str:
    return f"\\u{ord(match[0]):04x}"


@contextlib.contextmanager
def inert_output() -> Iterator[None]:
    """Whatever is printed inside is inert. rich, which steers the terminal itself, writes past it: see console.py."""
    with contextlib.redirect_stdout(Inert(sys.stdout)), contextlib.redirect_stderr(Inert(sys.stderr)):
        yield


class Inert:
    """A text stream that makes what is written inert, and in all else is `rich_proxied_file` (rich's name for it)."""

    def __init__(self, stream: TextIO):
        self.rich_proxied_file = stream

    def write(self, text: str) -> int:
        self.rich_proxied_file.write(inert(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.rich_proxied_file, name)
