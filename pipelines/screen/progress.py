"""What the user sees while a job runs: a bar on a terminal, a plain line now and then elsewhere. All on standard error."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from levit_batch.results.page.formats import plural
from levit_batch.table.plan import Plan
from pipelines.screen.console import InertConsole

LINE_EVERY = 10.0  # seconds between plain lines


class Display:
    """Rows done of rows planned (what was done before counts), images per second, time left, errors."""

    def __init__(self, console: Console | None):
        self.console = console
        self.bar: Progress | None = None
        self.done = self.total = self.labelled = self.errors = self.failed = self.begun_again = 0
        self.unit = "row"

    @classmethod
    def silent(cls) -> "Display":
        return cls(None)

    @classmethod
    def on_stderr(cls) -> "Display":
        return cls(InertConsole(stderr=True, highlight=False, soft_wrap=True))

    def say(self, text: str) -> None:
        if self.console:
            self.console.print(text, markup=False)

    @contextlib.contextmanager
    def run(self, plan: Plan) -> Iterator[None]:
        """Show the progress of `plan` while the context lasts."""
        # Shards that only reading can count make rows unknown: chunks are counted then.
        by_chunk = any(chunk.stop is None for chunk in plan.pending)
        self.unit = "chunk" if by_chunk else "row"
        self.done = len(plan.done) if by_chunk else plan.done_rows
        self.total = plan.chunks if by_chunk else plan.rows
        self.shown = time.monotonic()
        self.working: float | None = None  # since when chunks are worked on: not since Ray began to start
        if not self.console or not plan.pending:
            yield
        elif self.console.is_terminal:
            with self._bar() as self.bar:
                start = f"starting on {plural(self.total, self.unit)}"
                self.task = self.bar.add_task("", total=self.total, completed=self.done, facts=start)
                yield
            self.bar = None
        else:
            self.say(self.line() if self.done else f"starting on {plural(self.total, self.unit)}")
            yield
            self.say(self.line())

    def _bar(self) -> Progress:
        columns = (
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
        )
        return Progress(*columns, console=self.console, transient=False)

    def add(self, record: dict[str, Any]) -> None:
        """One chunk is finished, or has failed for now."""
        if "failed" in record:
            self.failed += 1
        else:
            if self.working is None:
                self.working = time.monotonic() - sum(record.get("seconds", {}).values())
            self.done += 1 if self.unit == "chunk" else record["rows"]
            self.labelled += record["rows"]
            self.errors += sum(record["errors"].values())
            self.begun_again += record.get("begun_again", False)
        if self.bar:
            self.bar.update(self.task, completed=self.done, facts=self.facts())
        elif self.console and time.monotonic() - self.shown > LINE_EVERY:
            self.shown = time.monotonic()
            self.say(self.line())

    def line(self) -> str:
        share = 100 * self.done / self.total if self.total else 100
        return f"{share:3.0f}%  {self.facts()}"

    def facts(self) -> str:
        seconds = time.monotonic() - self.working if self.working is not None else 0.0
        speed = self.labelled / seconds if seconds else 0
        parts = [f"{self.done:,} of {plural(self.total, self.unit)}", f"{speed:,.0f} images/s"]
        if self.labelled and self.done < self.total:
            done_now = self.labelled if self.unit == "row" else self.done
            parts.append(f"{clock((self.total - self.done) * seconds / max(1, done_now))} left")
        parts.append(plural(self.errors, "error row") if self.errors else "no errors")
        if self.begun_again:
            parts.append(f"chunks begun again: {self.begun_again}")
        if self.failed:
            parts.append(f"{plural(self.failed, 'chunk attempt')} failed")
        return " · ".join(parts)


def clock(seconds: float) -> str:
    """65 -> 1:05, 3700 -> 1:01:40."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
