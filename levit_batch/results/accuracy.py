"""How often the labels are right: top-1, top-5, by class, what is taken for what, and how honest the scores are."""

from typing import Any

import numpy as np

from levit_batch.table.target_stats import BINS, REST, unmatched_of

CONFUSIONS = 100  # pairs that the result lists


def accuracy(sums: dict[str, Any], classes: int) -> dict[str, Any]:
    """JSON values from the sums of `target_stats`: rows judged; `without` a target, `failed` (error rows with one), `outside`
    the model's classes; unmatched: `rows` whose targets all match none of these, such `targets`, and their commonest `names`;
    top1, top5 (null when fewer than 5 labels are kept), balanced (mean accuracy of the classes that occur); classes {index:
    rows, accuracy, predicted, precision}; confusions, most frequent first; calibration.
    """
    n, by_class = sums["rows"], {int(i): counts for i, counts in sums["classes"].items()}
    shares = [by_class[i][1] / by_class[i][0] for i in sorted(by_class) if by_class[i][0]]
    pairs = sorted(((int(code), rows) for code, rows in sums["pairs"].items()), key=lambda pair: (-pair[1], pair[0]))
    return {
        **{name: sums[name] for name in ("rows", "without", "failed", "outside")},
        "unmatched": _unmatched(**unmatched_of({"target": sums})),
        "top1": sums["right"] / n if n else None,
        "top5": sums["right5"] / n if n and sums["right5"] is not None else None,
        "balanced": float(np.mean(shares)) if shares else None,
        "classes": {str(i): _class(*by_class[i]) for i in sorted(by_class)},
        "confusions": [
            {"target": code // classes, "label": code % classes, "rows": rows} for code, rows in pairs[:CONFUSIONS]
        ],
        "calibration": _reliability(*np.reshape(sums["bins"], (3, BINS)), n),
    }


def _unmatched(rows: int, names: dict[str, int]) -> dict[str, Any]:
    named = {name: n for name, n in names.items() if name != REST}
    return {"rows": rows, "targets": sum(names.values()), "names": named}


def _class(support: int, hits: int, predicted: int, precise: int) -> dict[str, Any]:
    return {
        "rows": support, "accuracy": hits / support if support else None,
        "predicted": predicted, "precision": precise / predicted if predicted else None,
    }  # fmt: skip


def _reliability(rows: np.ndarray, scores: np.ndarray, right: np.ndarray, judged: int) -> dict[str, Any]:
    """Expected calibration error: sum over bins of |rows| / N * |accuracy - mean score|, 15 bins of equal width.

    Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017, eq. 3.
    """
    filled = np.maximum(rows, 1)
    bins = [
        {"from": i / BINS, "to": (i + 1) / BINS, "rows": int(rows[i]),
         "score": scores[i] / filled[i] if rows[i] else None, "accuracy": right[i] / filled[i] if rows[i] else None}
        for i in range(BINS)
    ]  # fmt: skip
    return {"error": float(np.abs(right - scores).sum() / judged) if judged else None, "bins": bins}
