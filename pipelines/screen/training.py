"""What a person sees while a training runs: a bar where there is a terminal, a line an epoch where there is none."""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from levit_batch.training.config import Report
from pipelines.screen.console import InertConsole


@contextlib.contextmanager
def shown() -> Iterator[Report]:
    """A function that takes the trainer's events: a step's (`step`, `steps`, `loss`, ...) or an epoch's (`entry`)."""
    console = InertConsole(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("starting", total=None)
        last = [0.0]

        def report(event: dict[str, Any]) -> None:
            if "entry" in event:
                console.print(epoch_line(event["entry"]), highlight=False, soft_wrap=True)
            elif time.monotonic() - last[0] > 0.1 or event["step"] == event["steps"]:
                last[0] = time.monotonic()
                text = f"epoch {event['epoch']}  loss {event['loss']:.4f}  accuracy {event['accuracy']:.4f}"
                progress.update(task, completed=event["step"], total=event["steps"], description=text)

        yield report


def epoch_line(entry: dict[str, Any]) -> str:
    """One finished epoch in words."""
    parts = [f"epoch {entry['epoch']}: loss {entry['loss']:.4f}, accuracy {entry['accuracy']:.4f}"]
    if "validation_loss" in entry:
        parts.append(f"validation {entry['validation_loss']:.4f}, {entry['validation_accuracy']:.4f}")
    if entry["skipped"]:
        parts.append("skipped " + ", ".join(f"{count} {kind}" for kind, count in entry["skipped"].items()))
    return "; ".join([*parts, f"{entry['rows'] / max(entry['seconds'], 1e-9):,.0f} images/s"])
