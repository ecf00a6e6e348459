"""How often labels are right, in sums: counts by class and by confused pair that occur, and scores for calibration."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.table.rows import list_matrix

NAMES = 20  # of targets that match nothing, kept in sums: what a footer has room for
REST = ""  # those beyond

BINS = 15  # of the expected calibration error, as in its source


def target_stats(
    good: pa.Table,
    target: pa.Array | pa.ChunkedArray,
    fine: pa.Array | pa.ChunkedArray,
    classes: int,
    missed: pa.Array | None = None,
) -> dict[str, Any]:
    """Labels held against `target` [N]; `fine` [N] says which rows have no error, `good` are those (label, score, top_labels).

    A target is a class index, or a list of them (ImageNet ReaL style: any of them is right; Beyer et al., "Are we done with
    ImageNet?", 2020). Rows whose target is null, negative or an empty list are `without`, error rows with one have `failed`.
    A target beyond the model's `classes` is `outside`: it cannot be met and counts as wrong. missed [N]: the names that match no
    class (see `TargetMap.apply`), which `target` has no more: `unmatched` {rows that have no other, names {name: times}}.

    rows judged; right; right5 (null when fewer than 5 labels are kept); classes {index: [rows of it, right ones, rows labelled
    so, right ones]}; pairs {target * classes + label: rows}; bins [3 * BINS]: rows, sum of scores and right ones by score.
    """
    row, truth = _flat(pc.filter(target, fine))  # [T], [T]: T truths, each with the row it belongs to
    judged, right, right5 = np.zeros((3, good.num_rows), bool)
    judged[row] = True
    label, top = good["label"].to_numpy(), list_matrix(good["top_labels"])[:, :5]
    right[row[label[row] == truth]] = True
    right5[row[(top[row] == truth[:, None]).any(1)]] = True
    known, unmatched = truth < classes, _unmatched(missed, fine, judged)
    by_class, pairs = _by_class(row[known], truth[known], label, right, judged, classes)
    return {
        "rows": int(judged.sum()), "right": int(right.sum()),
        "right5": int(right5.sum()) if top.shape[1] >= min(5, classes) else None,
        "without": int((~judged).sum()) - unmatched["rows"], "unmatched": unmatched,
        "failed": pc.sum(pc.is_valid(pc.filter(target, pc.invert(fine)))).as_py() or 0,
        "outside": len(np.unique(row[~known])), "classes": by_class, "pairs": pairs,
        "bins": _bins(good["score"].to_numpy()[judged], right[judged]),
    }  # fmt: skip


def _unmatched(missed: pa.Array | None, fine: pa.Array | pa.ChunkedArray, judged: np.ndarray) -> dict[str, Any]:
    if missed is None or missed.null_count == len(missed):
        return {"rows": 0, "names": {}}
    missed = missed.filter(fine.combine_chunks() if isinstance(fine, pa.ChunkedArray) else fine)
    if pa.types.is_list(missed.type):
        row, names = pc.list_parent_indices(missed).to_numpy(), pc.list_flatten(missed)
    else:
        row, names = np.flatnonzero(missed.is_valid()), missed.drop_null()
    lost = np.unique(row[~judged[row]])
    counts = {one["values"]: one["counts"] for one in names.value_counts().to_pylist()}
    return {"rows": len(lost), "names": commonest(counts)}


def commonest(counts: dict[str, int], most: int = NAMES) -> dict[str, int]:
    """The `most` commonest names, and the others together as `REST`: the sum stays exact, also of what is taken away again."""
    names = sorted(((-n, name) for name, n in counts.items() if n > 0 and name != REST))[:most]
    rest = sum(counts.values()) + sum(n for n, _ in names)
    return {name: -n for n, name in names} | ({REST: rest} if rest else {})


def unmatched_of(stats: dict[str, Any] | None) -> dict[str, Any]:
    """The `unmatched` of `chunk_stats`; none where there is no target, or an older file says nothing."""
    return ((stats or {}).get("target") or {}).get("unmatched") or {"rows": 0, "names": {}}


def with_unmatched(target: dict[str, Any] | None, unmatched: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The sums `target` of rows whose targets that match nothing are known from elsewhere: an output has null for them."""
    if target is None:
        return None
    have = target["unmatched"]
    names, rows = Counter(have["names"]), 0
    for one in unmatched:
        rows += one["rows"]
        names.update(one["names"])
    have = {"rows": have["rows"] + rows, "names": commonest(names)}
    return target | {"without": target["without"] - rows, "unmatched": have}


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
