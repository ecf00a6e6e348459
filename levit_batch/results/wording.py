"""What the accuracy in metrics.json is of, in the words of summary, page and card alike."""

from typing import Any

NAMES = 5


def judged_rows(metrics: dict[str, Any]) -> str:
    """After a figure: of how many rows it is, where that is not all, and against which truth, where that is not the job's own."""
    target = metrics.get("target") or {}
    rows = "" if target.get("rows") == metrics["rows"] else f" of {target['rows']:,} rows"
    return rows + against(metrics)


def against(metrics: dict[str, Any]) -> str:
    """` against truth.parquet (klass)`; empty where the labels are held against the job's own targets."""
    truth = metrics.get("truth")
    return f" against {truth['table']} ({truth['column']})" if truth else ""


def unmatched(metrics: dict[str, Any]) -> str | None:
    """Which targets match no class, in words; None where each does."""
    found = (metrics.get("target") or {}).get("unmatched")
    if not found or not found["targets"]:
        return None
    n, names = found["targets"], list(found["names"].items())[:NAMES]
    rest = n - sum(times for _, times in names)
    shown = [f"{name}: {times:,}" for name, times in names] + ([f"others: {rest:,}"] if rest else [])
    return f"{n:,} target{' matches' if n == 1 else 's match'} no class of the model ({', '.join(shown)})"
