"""A bar while a table is scanned, on a terminal only."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from levit_batch.table.read import ChunkFile
from pipelines.screen.console import InertConsole


@contextmanager
def scanning(what: str, files: list[ChunkFile]) -> Iterator[Callable[[int], None]]:
    """Yields what is told the rows of each block. The bar knows the time that is left, as the files' names tell their rows."""
    total = sum(file.written.stop - file.written.first for file in files if file.written.stop is not None)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("left:"), TimeRemainingColumn())
    with Progress(*columns, console=InertConsole(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(what, total=total or None)
        yield lambda rows: bar.advance(task, rows)
