"""A run's rows held against those of the runs before it into the same output."""

from collections.abc import Iterator
from typing import Any

from levit_batch.job.config import DriftConfig
from levit_batch.results.drift import compare
from levit_batch.table.output import Output
from levit_batch.table.read import run_names


def drift_of(output: Output, run: str, stats: dict[str, Any], config: DriftConfig) -> dict[str, Any] | None:
    """What `drift.compare` says of `stats`, the sums of the run called `run`; None for a run without new rows."""
    if not stats["rows"]:
        return None
    before = [stats for _, stats in zip(range(config.history), stats_before(output, run), strict=False)]
    return compare(stats, before[::-1], config)


def stats_before(output: Output, run: str) -> Iterator[dict[str, Any]]:
    """The sums of earlier runs with new rows, latest first; reads only as many records as are asked for."""
    for name in reversed([name for name in run_names(output) if name < run]):
        record = output.read_json(f"runs/{name}.json") or {}
        if record.get("rows") and record.get("stats"):
            yield record["stats"]
