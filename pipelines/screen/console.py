"""Tables on a terminal, and as plain text where there is none."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from pipelines.screen.inert import inert, inert_cell

PIPED_WIDTH = 160  # a pipe has no width of its own


class InertConsole(Console):
    """A console on standard output or error whose texts cannot steer the terminal (those of tables: see `table`)."""

    def __init__(self, *, stderr: bool = False, **options):
        stream = sys.stderr if stderr else sys.stdout
        super().__init__(file=getattr(stream, "rich_proxied_file", stream), **options)  # not what would escape rich's own

    def print(self, *objects, **options) -> None:
        super().print(*(inert(text) if isinstance(text, str) else text for text in objects), **options)


def console() -> Console:
    """Standard output. Nothing in what is printed is taken for markup: class names may hold brackets and colons."""
    width = None if sys.stdout.isatty() else PIPED_WIDTH
    return InertConsole(width=width, markup=False, emoji=False, highlight=False, soft_wrap=False)


def table(
    title: str | None, head: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()
) -> Group | Table:
    """A table of texts under its title; columns in `right` are aligned to the right."""
    made = Table(box=None, pad_edge=False, show_header=any(head))
    for i, name in enumerate(head):
        number = i in right
        made.add_column(
            Text(inert_cell(name)), justify="right" if number else "left", overflow="fold", no_wrap=number, header_style="bold"
        )
    for row in rows:
        made.add_row(*(Text(inert_cell(cell)) for cell in row))
    # Table's own title would be broken to the width of a narrow table.
    return made if title is None else Group(Text(title, style="italic"), made)
