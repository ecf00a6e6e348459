"""Labels that are likely wrong: targets by confident learning, or else predictions on which the heads disagree."""

import numpy as np
import pyarrow as pa

from levit_batch.table.rows import list_matrix

TARGETS, HEADS = "target", "heads"
COLUMNS = ("target", "label", "top_labels", "top_scores", "head_label", "distill_label", "head_divergence")


class Suspects:
    """Two passes over a table's good rows: `learn` all, then `judge` each.

    Northcutt et al., Confident Learning (JAIR 70, 2021), as cleanlab's `filter_by="confident_learning"` has it: of a row whose
    probabilities reach the mean self-confidence of other classes, the likeliest is its label, unless it is the given one.
    """

    def __init__(self, schema: pa.Schema, classes: int):
        has = [name for name in COLUMNS if name in schema.names]
        single = "target" in has and pa.types.is_integer(schema.field("target").type)
        self.by = TARGETS if single else HEADS if "head_divergence" in has else None
        self.classes = classes
        self.sums, self.counts = np.zeros(classes), np.zeros(classes, np.int64)

    def learn(self, rows: pa.Table) -> None:
        if self.by == TARGETS:
            target, known = self._targets(rows)
            given = self._given(rows, target)
            self.sums += np.bincount(target[known], given[known], self.classes)
            self.counts += np.bincount(target[known], minlength=self.classes)

    @property
    def thresholds(self) -> np.ndarray:
        """Mean probability [K] that the rows of a class have for it; inf for a class without rows."""
        return np.divide(self.sums, self.counts, out=np.full(self.classes, np.inf), where=self.counts > 0)

    def judge(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """quality float32 [N]: the probability of the target, or 1 - the heads' divergence, NaN where nothing is known; and
        int32 [N]: the label that is likelier right, -1 where none is suspected."""
        if self.by == TARGETS:
            return self._judge_targets(rows)
        if self.by == HEADS:
            one, other, label = (rows[name].to_numpy() for name in ("head_label", "distill_label", "label"))
            apart = np.where(label == one, other, one)
            return 1 - rows["head_divergence"].to_numpy(), np.where(one != other, apart, -1).astype(np.int32)
        return np.full(rows.num_rows, np.nan, np.float32), np.full(rows.num_rows, -1, np.int32)

    def _judge_targets(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        target, known = self._targets(rows)
        labels, scores = list_matrix(rows["top_labels"]), list_matrix(rows["top_scores"])
        confident = scores >= self.thresholds[labels] - 1e-6  # best first: the first of them is the likeliest
        guess = np.take_along_axis(labels, confident.argmax(1)[:, None], 1)[:, 0]
        wrong = known & confident.any(1) & (guess != target) & (labels[:, 0] != target)
        quality = np.where(known, self._given(rows, target), np.nan).astype(np.float32)
        return quality, np.where(wrong, guess, -1).astype(np.int32)

    def _targets(self, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        target = rows["target"].fill_null(-1).to_numpy()
        return target, (target >= 0) & (target < self.classes)

    def _given(self, rows: pa.Table, target: np.ndarray) -> np.ndarray:
        """The probability [N] of each row's target; of one that is not among the stored, an even share of what these leave."""
        labels, scores = list_matrix(rows["top_labels"]), list_matrix(rows["top_scores"])
        hit = labels == target[:, None]
        rest = (1 - scores.sum(1)).clip(0) / max(self.classes - labels.shape[1], 1)
        return np.where(hit.any(1), (scores * hit).sum(1), rest)
