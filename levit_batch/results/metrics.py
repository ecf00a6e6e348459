"""What all rows of an output say in sum, and how good they are where the truth is known: `metrics.json`."""

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from levit_batch.results.accuracy import accuracy
from levit_batch.table.books import up_to_date
from levit_batch.table.output import Output
from levit_batch.table.read import NARROW, chunk_files, job_of
from levit_batch.table.scan import scan_files
from levit_batch.table.stats import Stats, add_stats, chunk_stats

# The truth for a table's rows, from elsewhere than its `target` column, and what of it is no class (`TargetMap.apply`).
Truth = Callable[[pa.Table], tuple[pa.Array, pa.Array | None]]


def measure(output: Output, truth: Truth | None = None, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Metrics of every row in `output`, as JSON values: from the sums that the manifest keeps.

    truth: gives the targets in place of the `target` column, from the columns `keys`; then the narrow columns of all rows are
    read. Memory grows with classes only.

    rows, errors {kind: rows}, error_rate; labels {class index: rows}, most frequent first; scores: `histogram` [50] of
    rows by score in [0, 1], `mean`; heads (with predict.per_head): mean `divergence` in bits and share that `disagree`;
    target: None, or what `accuracy` says; top1, top5 and calibration_error are taken out of it for convenience; truth: None for
    the table's own targets, else `evaluate` names it.
    """
    classes = len(job_of(output)["class_names"])
    if truth:
        tables = scan_files(chunk_files(output), (*NARROW, *keys))
        return metrics(add_stats(chunk_stats(table, classes, *truth(table)) for _, table in tables), classes)
    return metrics(up_to_date(output).sums, classes)


def metrics(sums: Stats, classes: int) -> dict[str, Any]:
    """The content of metrics.json, see `measure`."""
    good, target = sum(sums["labels"].values()), sums["target"] and accuracy(sums["target"], classes)
    both = good and sums["disagree"] is not None
    return {
        "rows": sums["rows"],
        "errors": sums["errors"],
        "error_rate": (sums["rows"] - good) / sums["rows"] if sums["rows"] else 0.0,
        "top1": target and target["top1"],
        "top5": target and target["top5"],
        "calibration_error": target and target["calibration"]["error"],
        "labels": dict(sorted(sums["labels"].items(), key=lambda one: (-one[1], int(one[0])))),
        "scores": {"histogram": sums["scores"], "mean": sums["score"] / good if good else None},
        "heads": {name: sums[name] / good for name in ("divergence", "disagree")} if both else None,
        "target": target,
        "truth": None,
    }
