"""Every night: label what is new, compare it with the nights before, report, tell someone.

run_job labels, compares (drift.py) and writes the record and the page; here is how a night ended, as an exit code and a message.
"""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from levit_batch.errors import LevitBatchError, LockedError, brief
from levit_batch.job.config import JobConfig
from levit_batch.results.page.formats import plural
from pipelines.interrupt import deferred, interrupted
from pipelines.nightly.notify import notify
from pipelines.screen.progress import Display
from pipelines.screen.summary import summary

if TYPE_CHECKING:
    from pipelines.label.record import RunResult

TOO_MANY_ERRORS = 3
DRIFT = 4
LOCKED = 75  # EX_TEMPFAIL: nothing is wrong, another run is at it
INTERRUPTED = 130


@dataclass(frozen=True)
class Night:
    """How a night ended. result is None where the job did not get to its end."""

    exit_code: int
    text: str
    result: "RunResult | None" = None


def run_nightly(
    config: JobConfig,
    *,
    fail_on_drift: bool = False,
    wait_for_lock: float = 0.0,
    verbose: bool = False,
    display: Display | None = None,
) -> Night:
    """Run the job and notify. Errors are raised as `run_job` raises them, after the message about them is sent."""
    display = display or Display.silent()
    try:
        from pipelines.label.run import run_job  # heavy: an interruption meanwhile is told, too

        result = run_job(config, verbose=verbose, display=display, wait_for_lock=wait_for_lock)
        code, events = outcome(result, fail_on_drift)
        text = summary(config, result)
    except LockedError as e:
        tell(config, {"failure"}, failed(config, "locked", LOCKED, str(e)), display)
        return Night(LOCKED, str(e))
    except BaseException as e:
        if interrupted(e):
            how = failed(config, "interrupted", INTERRUPTED, "stopped by a signal")
        else:
            code = e.exit_code if isinstance(e, LevitBatchError) else 1
            how = failed(config, "failed", code, said(e))
        tell(config, {"failure"}, how, display)
        raise
    tell(config, events, ended(config, result, code, text), display)
    return Night(code, text, result)


def said(error: BaseException) -> str:
    """What went wrong; a bug, whose words may be no sentence, with its type."""
    return brief(error, 1000) if isinstance(error, LevitBatchError | OSError) else f"{type(error).__name__}: {error}"


def outcome(result: "RunResult", fail_on_drift: bool) -> tuple[int, set[str]]:
    """The night's exit code and the events that it is. Too many errors outweigh drift: they may be what causes it."""
    drifted = (result.record["drift"] or {}).get("verdict") == "drift"
    code = result.exit_code or (DRIFT if drifted and fail_on_drift else 0)
    return code, {"failure" if code else "success"} | ({"drift"} if drifted else set())


def tell(config: JobConfig, events: set[str], payload: dict[str, Any], display: Display) -> None:
    with deferred():  # the night is over, and someone hears of it
        notify(config.notify, events, payload, display.say)


def failed(config: JobConfig, state: str, code: int, message: str) -> dict[str, Any]:
    """The message about a night that did not get to its end."""
    return base(config, state, code) | {"text": f"levit-batch {config.output.path}: {state}: {message.splitlines()[0]}"}


def base(config: JobConfig, state: str, code: int) -> dict[str, Any]:
    return {"output": config.output.path, "host": os.uname().nodename, "state": state, "exit_code": code}


def ended(config: JobConfig, result: "RunResult", code: int, text: str) -> dict[str, Any]:
    """The message about a night that did. Slack's and other webhooks show `text`, one line, and nothing else of it."""
    record = result.record
    state, first = record["state"], text.splitlines()[0]
    lines = [first if first.startswith(state) else f"{state}: {first}"]  # "nothing new" is said by both
    if result.exit_code == TOO_MANY_ERRORS:
        errors, rows = sum(result.metrics["errors"].values()), result.metrics["rows"]
        lines.append(f"{errors:,} of {plural(rows, 'row')} in the output have an error")
    if (record["drift"] or {}).get("verdict") == "drift":
        lines.append(f"drift: {record['drift']['why']}")
    keys = ("started", "ended", "seconds", "rows", "errors", "error_rate", "images_per_second")
    drift = record["drift"] and {key: record["drift"][key] for key in ("verdict", "why", "breaches")}
    return base(config, record["state"], code) | {key: record[key] for key in keys} | {
        "drift": drift,
        "new_shards": record["shards"]["new"]["count"],
        "changed_shards": record["shards"]["changed"]["count"],
        "vanished_shards": record["shards"]["vanished"]["count"],
        "text": f"levit-batch {config.output.path}: {'; '.join(lines)}",
    }  # fmt: skip
