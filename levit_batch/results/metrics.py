"""What all rows of an output say in sum, and how good they are where the truth is known: `metrics.json`."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.results.accuracy import Accuracy
from levit_batch.table.output import Output
from levit_batch.table.read import chunk_files, job_of, scan_files

SCORE_BINS = 50
COLUMNS = ("row", "target", "label", "score", "top_labels", "head_label", "distill_label", "head_divergence", "error")

# The truth for a table's rows, from elsewhere than its `target` column.
Truth = Callable[[pa.Table], pa.Array]


def measure(output: Output, truth: Truth | None = None, keys: Sequence[str] = ()) -> dict[str, Any]:
    """Metrics of every row in `output`, as JSON values. Streams the narrow columns; memory grows with classes only.

    truth: gives the targets in place of the `target` column, from the columns `keys`.

    rows, errors {kind: rows}, error_rate; labels {class index: rows}, most frequent first; scores: `histogram` [50] of
    rows by score in [0, 1], `mean`; heads (with predict.per_head): mean `divergence` in bits and share that `disagree`;
    target: None, or what `Accuracy.result` says; top1, top5 and calibration_error are taken out of it for convenience.
    """
    tally = Tally(len(job_of(output)["class_names"]))
    for _, table in scan_files(chunk_files(output), (*COLUMNS, *keys)):
        tally.add(table, truth(table) if truth else table["target"] if "target" in table.schema.names else None)
    return tally.result()


class Tally:
    """Sums over output rows, table after table."""

    def __init__(self, classes: int):
        self.rows = 0
        self.errors: Counter = Counter()
        self.labels = np.zeros(classes, np.int64)
        self.scores = np.zeros(SCORE_BINS, np.int64)
        self.score_sum = 0.0
        self.heads: np.ndarray | None = None  # divergence sum, disagreements
        self.accuracy: Accuracy | None = None

    def add(self, table: pa.Table, target: pa.Array | pa.ChunkedArray | None) -> None:
        self.rows += table.num_rows
        self.errors.update(error_kinds(table["error"]))
        fine = pc.is_null(table["error"])
        good = table.filter(fine)
        score = good["score"].to_numpy()
        self.labels += np.bincount(good["label"].to_numpy(), minlength=len(self.labels))
        self.scores += np.histogram(score, SCORE_BINS, (0, 1))[0]
        self.score_sum += float(score.sum(dtype=np.float64))
        if "head_divergence" in table.schema.names:
            self._add_heads(good)
        if target is not None:
            self.accuracy = self.accuracy or Accuracy(len(self.labels))
            failed = pc.is_valid(pc.filter(target, pc.invert(fine)))
            self.accuracy.failed += pc.sum(failed).as_py() or 0
            self.accuracy.add(good, pc.filter(target, fine))

    def _add_heads(self, good: pa.Table) -> None:
        disagree = good["head_label"].to_numpy() != good["distill_label"].to_numpy()
        divergence = good["head_divergence"].to_numpy().sum(dtype=np.float64)
        self.heads = (0 if self.heads is None else self.heads) + np.array([divergence, disagree.sum()], np.float64)

    def result(self) -> dict[str, Any]:
        good = int(self.labels.sum())
        order = np.argsort(-self.labels, kind="stable")
        target = self.accuracy.result() if self.accuracy else None
        return {
            "rows": self.rows,
            "errors": dict(self.errors.most_common()),
            "error_rate": (self.rows - good) / self.rows if self.rows else 0.0,
            "top1": target and target["top1"],
            "top5": target and target["top5"],
            "calibration_error": target and target["calibration"]["error"],
            "labels": {str(i): int(self.labels[i]) for i in order if self.labels[i]},
            "scores": {"histogram": self.scores.tolist(), "mean": self.score_sum / good if good else None},
            "heads": self._heads(good),
            "target": target,
        }

    def _heads(self, good: int) -> dict[str, float] | None:
        if self.heads is None or not good:
            return None
        return {"divergence": float(self.heads[0] / good), "disagree": float(self.heads[1] / good)}


def error_kinds(errors: pa.Array | pa.ChunkedArray) -> dict[str, int]:
    """Rows by the kind of their error ("kind: message"); rows without one are not counted."""
    kinds = pc.list_element(pc.split_pattern(errors.drop_null(), ":", max_splits=1), 0)
    return {e["values"]: e["counts"] for e in pc.value_counts(kinds).to_pylist()}
