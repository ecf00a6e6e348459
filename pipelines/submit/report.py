"""What there is to say of a job on a cluster: its end, in one line, and all jobs as a table."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from levit_batch.storage.redact import redact

RUNNING = ("PENDING", "RUNNING")
MISSING = re.compile(r"^ModuleNotFoundError: No module named '([\w.]+)'", re.MULTILINE)
FAILED = "entrypoint command failed"  # in Ray's words, before the last lines of the log


def exit_code(job: Any) -> int:
    """The code that the job's own command ended with."""
    if job.status == "SUCCEEDED":
        return 0
    return job.driver_exit_code if job.driver_exit_code and job.driver_exit_code > 0 else 1


def as_json(job: Any) -> dict[str, Any]:
    """What `status` tells of a job; never its environment."""
    return {
        "job": job.submission_id,
        "name": job.metadata["name"],
        "status": str(job.status.value),
        "exit_code": exit_code(job) if job.status not in RUNNING else None,
        "started": when(job.start_time),
        "ended": when(job.end_time),
        "output": job.metadata.get("output"),
        "message": redact(why(job.message or "")),
    }


def why(message: str) -> str:
    """What Ray says of a job that has ended, in one line: how its log ends where its own command failed."""
    if missing := MISSING.search(message):
        return (
            f"the cluster's Python has no module {missing[1]}: say --pip to have what the package needs installed there, or make "
            "the nodes from pipelines/Dockerfile and say --image-has-it"
        )
    lines = [line.strip() for line in message.splitlines() if line.strip()] or [""]
    return lines[-1 if FAILED in lines[0] else 0][:300]


def table(jobs: list[dict[str, Any]]) -> Iterator[str]:
    """The jobs as lines of a table."""
    columns = ("job", "status", "exit_code", "started", "ended", "output")
    rows = [columns, *([str("-" if job[c] is None else job[c]) for c in columns] for job in jobs)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def when(milliseconds: int | None) -> str | None:
    return milliseconds and datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
