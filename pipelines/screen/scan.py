"""Bars with the time that is left while a table is read or compared, on a terminal only."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from levit_batch.results.near.vectors import Step
from pipelines.screen.console import InertConsole


@contextmanager
def bars() -> Iterator[Step]:
    """Yields what is told how far each part of the work is: a bar a part."""
    tasks: dict = {}
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("left:"), TimeRemainingColumn())
    on = InertConsole(stderr=True)
    if not on.is_terminal:  # rich before 15 writes an empty line there
        yield lambda part, more, total: None
        return
    with Progress(*columns, console=on, transient=True, redirect_stdout=False) as shown:

        def step(part: str, more: int, total: int | None) -> None:
            if part not in tasks:
                tasks[part] = shown.add_task(part, total=total)
            shown.advance(tasks[part], more)

        yield step
