"""How often labels are right, in sums: counts by class and by confused pair that occur, and scores for calibration."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.table.rows import list_matrix

BINS = 15  # of the expected calibration error, as in its source


def target_stats(
    good: pa.Table, target: pa.Array | pa.ChunkedArray, fine: pa.Array | pa.ChunkedArray, classes: int
) -> dict[str, Any]:
    """Labels held against `target` [N]; `fine` [N] says which rows have no error, `good` are those (label, score, top_labels).

    A target is a class index, or a list of them (ImageNet ReaL style: any of them is right; Beyer et al., "Are we done with
    ImageNet?", 2020). Rows whose target is null, negative or an empty list are `without`, error rows with one have `failed`.
    A target beyond the model's `classes` is `outside`: it cannot be met and counts as wrong.

    rows judged; right; right5 (null when fewer than 5 labels are kept); classes {index: [rows of it, right ones, rows labelled
    so, right ones]}; pairs {target * classes + label: rows}; bins [3 * BINS]: rows, sum of scores and right ones by score.
    """
    row, truth = _flat(pc.filter(target, fine))  # [T], [T]: T truths, each with the row it belongs to
    judged, right, right5 = np.zeros((3, good.num_rows), bool)
    judged[row] = True
    label, top = good["label"].to_numpy(), list_matrix(good["top_labels"])[:, :5]
    right[row[label[row] == truth]] = True
    right5[row[(top[row] == truth[:, None]).any(1)]] = True
    known = truth < classes
    by_class, pairs = _by_class(row[known], truth[known], label, right, judged, classes)
    return {
        "rows": int(judged.sum()), "right": int(right.sum()),
        "right5": int(right5.sum()) if top.shape[1] >= min(5, classes) else None,
        "without": int((~judged).sum()), "failed": pc.sum(pc.is_valid(pc.filter(target, pc.invert(fine)))).as_py() or 0,
        "outside": len(np.unique(row[~known])), "classes": by_class, "pairs": pairs,
        "bins": _bins(good["score"].to_numpy()[judged], right[judged]),
    }  # fmt: skip


def _by_class(
    row: np.ndarray, truth: np.ndarray, label: np.ndarray, right: np.ndarray, judged: np.ndarray, classes: int
) -> tuple[dict[str, list[int]], dict[str, int]]:
    values = (truth, truth[right[row]], label[judged], label[right])
    counts = np.stack([np.bincount(each, minlength=classes) for each in values], axis=1)
    by_class = {str(i): counts[i].tolist() for i in np.flatnonzero(counts.any(axis=1))}
    # With several truths a miss confuses nothing in particular: only rows with one are paired.
    wrong = (np.bincount(row, minlength=len(label))[row] == 1) & ~right[row]
    codes, rows = np.unique(truth[wrong] * classes + label[row[wrong]], return_counts=True)
    return by_class, {str(code): n for code, n in zip(codes.tolist(), rows.tolist(), strict=True)}


def _bins(score: np.ndarray, right: np.ndarray) -> list[float]:
    place = np.clip(np.ceil(score * BINS).astype(int) - 1, 0, BINS - 1)  # bins are (low, high]
    return np.concatenate([np.bincount(place, weight, BINS) for weight in (None, score, right)]).round(6).tolist()


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
