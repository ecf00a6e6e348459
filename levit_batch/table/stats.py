"""What rows say in sum: of a chunk, a run or a whole output, for the run's record, for drift and for metrics.

A chunk's sums travel to the driver and stay in the footer of its file, so that nobody needs its rows again to know them. All are
JSON values that add up: numbers, lists place by place, and counts by name of what occurs.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.table.target_stats import NAMES, commonest, target_stats, unmatched_of

Stats = dict[str, Any]
SCORE_BINS = 50
DIGITS = 6  # of sums that are not whole: so adding and taking away again gives the same sum, up to a billion rows
NONE: Stats = {
    "rows": 0, "errors": {}, "labels": {}, "scores": [0] * SCORE_BINS, "score": 0.0, "embedding": None, "norm": None,
    "divergence": None, "disagree": None, "target": None,
}  # fmt: skip


def chunk_stats(
    table: pa.Table, classes: int, target: pa.Array | pa.ChunkedArray | None = None, missed: pa.Array | None = None
) -> Stats:
    """Sums over the rows of an output table, or over its narrow columns (then without embeddings).

    rows; errors {kind: rows}; labels {index: rows}; scores [SCORE_BINS] rows by score in [0, 1]; score, embedding [D], norm (of
    the embeddings), divergence and disagree (of the heads): sums, null where the table has no such column; target: see
    `target_stats`, null without one. target: the truth [N], in place of the column; missed [N]: names in it that are no class.
    """
    fine = pc.is_null(table["error"])
    good, names = table.filter(fine), table.schema.names
    kinds = pc.list_element(pc.split_pattern(table["error"].drop_null(), ":", max_splits=1), 0)
    score = good["score"].to_numpy()
    embedding = _embeddings(good) if "embedding" in names else None
    heads = "head_divergence" in names
    disagree = pc.sum(pc.not_equal(good["head_label"], good["distill_label"])) if "head_label" in names else None
    target = table["target"] if target is None and "target" in names else target
    return {
        "rows": table.num_rows,
        "errors": {e["values"]: e["counts"] for e in pc.value_counts(kinds).to_pylist()},
        "labels": {str(e["values"]): e["counts"] for e in pc.value_counts(good["label"]).to_pylist()},
        "scores": np.histogram(score, SCORE_BINS, (0, 1))[0].tolist(),
        "score": round(float(score.sum(dtype=np.float64)), DIGITS),
        "embedding": None if embedding is None else [float(f"{one:.4g}") for one in embedding.sum(0)],  # a footer is small
        "norm": None if embedding is None else round(float(np.linalg.norm(embedding, axis=1).sum()), DIGITS),
        "divergence": round(pc.sum(good["head_divergence"]).as_py() or 0.0, DIGITS) if heads else None,
        "disagree": disagree and (disagree.as_py() or 0),
        "target": None if target is None else target_stats(good, target, fine, classes, missed),
    }


def _embeddings(table: pa.Table) -> np.ndarray:
    """The embeddings [N, D] as float64; rows without one are left out by the caller."""
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, column.type.list_size)


def add_stats(parts: Iterable[Stats]) -> Stats:
    """The stats of several chunks as if they were one; what an older one lacks counts as nothing. Frequent things come first."""
    total: Stats = {**NONE, "errors": {}, "labels": {}}
    for part in parts:
        _add(total, part)
        _keep_names(total, 50 * NAMES)
    _keep_names(total, NAMES, sure=True)
    total = _rounded(total)
    counts = {name: sorted(total[name].items(), key=lambda one: -one[1]) for name in ("errors", "labels")}
    return total | {name: dict(items) for name, items in counts.items()}


def _keep_names(total: Stats, most: int, sure: bool = False) -> None:
    """Of targets that match nothing keep the commonest `most` names. sure: also where they are fewer: some were taken away."""
    unmatched = unmatched_of(total)
    if sure or len(unmatched["names"]) > most:
        unmatched["names"] = commonest(unmatched["names"], most)


def without(total: Stats, parts: Iterable[Stats]) -> Stats:
    """`total` as it was before `parts` were added."""
    return _occurring(add_stats([total, _negative(add_stats(parts))]))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, DIGITS) if isinstance(value, float) else value


def _negative(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _negative(one) for name, one in value.items()}
    if isinstance(value, list):
        return [-one for one in value]
    return value if value is None else -value


def _occurring(stats: Stats) -> Stats:
    """Without the names that no row has any more."""
    target = stats["target"] and stats["target"] | {
        name: {k: v for k, v in stats["target"][name].items() if (any(v) if isinstance(v, list) else v)}
        for name in ("classes", "pairs")
    }
    counts = {name: {k: v for k, v in stats[name].items() if v} for name in ("errors", "labels")}
    return stats | counts | {"target": target}


def _add(total: dict[str, Any], part: dict[str, Any]) -> None:
    for name, value in part.items():
        have = total.get(name)
        if isinstance(value, dict):
            total[name] = {} if have is None else have
            _add(total[name], value)
        elif have is None or value is None:
            total[name] = value if have is None else have
        elif isinstance(value, list):
            total[name] = [a + b for a, b in zip(have, value, strict=True)]
        else:
            total[name] = have + value
