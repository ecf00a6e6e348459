"""How often the labels are right: top-1, top-5, by class, what is taken for what, and how honest the scores are."""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.table.read import list_matrix

BINS = 15  # of the expected calibration error, as in its source
CONFUSIONS = 100  # pairs that the result lists


class Accuracy:
    """Compares labels with targets, table after table; holds counts by class and by confused pair only.

    A target is a class index, or a list of them (ImageNet ReaL style: any of them is right; Beyer et al., "Are we done with
    ImageNet?", 2020). Rows whose target is null, negative or an empty list are left out, as are error rows. A target
    beyond the model's classes cannot be met and counts as wrong.
    """

    def __init__(self, classes: int):
        self.classes = classes
        self.rows = self.right = self.right5 = self.without = self.failed = self.outside = 0
        self.width = 0
        self.support, self.hits, self.predicted, self.precise = np.zeros((4, classes), np.int64)
        self.pairs: Counter = Counter()
        self.bins = np.zeros((3, BINS))  # rows, sum of scores, right

    def add(self, good: pa.Table, target: pa.Array | pa.ChunkedArray) -> None:
        """Count rows without an error (columns label, score, top_labels) against `target` [N]."""
        row, truth = _flat(target)  # [T], [T]: T truths, each with the row it belongs to
        judged = np.zeros(good.num_rows, bool)
        judged[row] = True
        self.without += int((~judged).sum())
        label, top = good["label"].to_numpy(), list_matrix(good["top_labels"])[:, :5]
        right, right5 = np.zeros((2, good.num_rows), bool)
        right[row[label[row] == truth]] = True
        right5[row[(top[row] == truth[:, None]).any(1)]] = True
        self.rows += int(judged.sum())
        self.right += int(right.sum())
        self.right5 += int(right5.sum())
        self.width = top.shape[1]
        self._by_class(row, truth, label, right, judged)
        self._calibration(good["score"].to_numpy()[judged], right[judged])

    def _by_class(
        self, row: np.ndarray, truth: np.ndarray, label: np.ndarray, right: np.ndarray, judged: np.ndarray
    ) -> None:
        known = truth < self.classes
        self.outside += len(np.unique(row[~known]))
        row, truth = row[known], truth[known]
        self.support += np.bincount(truth, minlength=self.classes)
        self.hits += np.bincount(truth[right[row]], minlength=self.classes)
        self.predicted += np.bincount(label[judged], minlength=self.classes)
        self.precise += np.bincount(label[right], minlength=self.classes)
        # With several truths a miss confuses nothing in particular: only rows with one are paired.
        single = np.bincount(row, minlength=len(label))[row] == 1
        wrong = single & ~right[row]
        codes, counts = np.unique(truth[wrong] * self.classes + label[row[wrong]], return_counts=True)
        self.pairs.update(dict(zip(codes.tolist(), counts.tolist(), strict=True)))

    def _calibration(self, score: np.ndarray, right: np.ndarray) -> None:
        place = np.clip(np.ceil(score * BINS).astype(int) - 1, 0, BINS - 1)  # bins are (low, high]
        for i, weight in enumerate((None, score, right)):
            self.bins[i] += np.bincount(place, weight, BINS)

    def result(self) -> dict[str, Any]:
        """JSON values: rows judged; `without` a target, `failed` (error rows with one), `outside` the model's classes;
        top1, top5 (null when fewer than 5 labels are kept), balanced (mean accuracy of the classes that occur);
        classes {index: rows, accuracy, predicted, precision}; confusions, most frequent first; calibration.
        """
        n = max(self.rows, 1)
        enough = self.width >= min(5, self.classes)
        seen = np.flatnonzero(self.support)
        share = self.hits[seen] / self.support[seen]
        return {
            "rows": self.rows, "without": self.without, "failed": self.failed, "outside": self.outside,
            "top1": self.right / n if self.rows else None,
            "top5": self.right5 / n if self.rows and enough else None,
            "balanced": float(share.mean()) if len(seen) else None,
            "classes": {str(i): self._class(i) for i in np.flatnonzero(self.support + self.predicted).tolist()},
            "confusions": [
                {"target": code // self.classes, "label": code % self.classes, "rows": rows}
                for code, rows in self.pairs.most_common(CONFUSIONS)
            ],
            "calibration": self._reliability(),
        }  # fmt: skip

    def _class(self, i: int) -> dict[str, Any]:
        support, hits, predicted = int(self.support[i]), int(self.hits[i]), int(self.predicted[i])
        return {
            "rows": support, "accuracy": hits / support if support else None,
            "predicted": predicted, "precision": int(self.precise[i]) / predicted if predicted else None,
        }  # fmt: skip

    def _reliability(self) -> dict[str, Any]:
        """Expected calibration error: sum over bins of |rows| / N * |accuracy - mean score|, 15 bins of equal width.

        Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, eq. 3.
        """
        rows, scores, right = self.bins
        filled = np.maximum(rows, 1)
        bins = [
            {"from": i / BINS, "to": (i + 1) / BINS, "rows": int(rows[i]),
             "score": scores[i] / filled[i] if rows[i] else None, "accuracy": right[i] / filled[i] if rows[i] else None}
            for i in range(BINS)
        ]  # fmt: skip
        error = float(np.abs(right - scores).sum() / max(self.rows, 1)) if self.rows else None
        return {"error": error, "bins": bins}


def _flat(target: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Every truth of a target column with the row it belongs to; none for rows without one."""
    if isinstance(target, pa.ChunkedArray):
        target = target.combine_chunks()
    if pa.types.is_list(target.type) or pa.types.is_large_list(target.type):
        row, truth = pc.list_parent_indices(target).to_numpy(), pc.list_flatten(target)
    else:
        row, truth = np.arange(len(target)), target
    truth = truth.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
    return row[truth >= 0], truth[truth >= 0]
