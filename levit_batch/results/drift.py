"""Whether tonight's rows differ from those of the nights before, by more than chance explains.

Each check has a threshold (what matters) and a noise level (what sampling alone exceeds about once in 100,000 nights);
it is breached above both, so a few hundred rows of a thousand classes raise no false alarm.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from levit_batch.job.config import DriftConfig
from levit_batch.table.history import CUT_OFF
from levit_batch.table.output import Output
from levit_batch.table.read import run_names
from levit_batch.table.stats import add_stats

Z = 4.26  # standard normal, one in 100,000
KOLMOGOROV = 2.47  # sqrt(-ln(0.00001 / 2) / 2): the two-sample Kolmogorov-Smirnov limit, one in 100,000
EXPECTED = 10  # rows that a cell should expect: Cochran asks for 5, the logarithm in PSI for more
EMBEDDING_NOISE = 3  # times the mean noise of a cosine shift; its spread depends on directions that are not recorded
MOVED = 10  # labels that the result names
PART = "part of a night"  # verdict on a run that went on with what one that was cut off had left
NO_CHECK = 1.0  # the end of every scale but PSI's (of a cosine: nothing in common): sampling alone may reach it

Stats = dict[str, Any]


def judge(now: Stats, before: Sequence[Stats], config: DriftConfig) -> dict[str, Any]:
    """Hold the stats of one run's rows (`stats.add_stats`) against those of the runs before it, oldest first.

    Returns JSON values: verdict ("ok", "drift", "too few rows", "no history"), why (a sentence), breaches (names),
    reference {runs, rows}, rows, checks [{name, title, value, threshold, noise, allowed (the larger of both), judged (False
    where the rows are too few for this check: sampling alone may exceed all that is possible), breach}],
    moved [{label, now, before}] (the labels whose share of the rows changed most).
    """
    before = [stats for stats in before if stats["rows"]][-config.history :]
    reference = add_stats(before)
    result = {"reference": {"runs": len(before), "rows": reference["rows"]}, "rows": now["rows"], "checks": [], "moved": []}
    if reference["rows"] < config.min_rows:
        return result | _verdict("no history", f"fewer than drift.min_rows={config.min_rows} rows in the runs before")
    if now["rows"] < config.min_rows:
        return result | _verdict("too few rows", f"fewer than drift.min_rows={config.min_rows} new rows")
    checks = [check for check in _checks(now, reference, config) if check]
    breaches = [check for check in checks if check["breach"]]
    why = "; ".join(f"{c['title']} {c['value']:.3g}, allowed {c['allowed']:.3g}" for c in breaches)
    result |= {"checks": checks, "moved": _moved(now, reference)}
    return result | _verdict("drift" if breaches else "ok", why or "within all thresholds", [c["name"] for c in breaches])


def _verdict(verdict: str, why: str, breaches: Sequence[str] = ()) -> dict[str, Any]:
    return {"verdict": verdict, "why": why, "breaches": list(breaches)}


def _checks(now: Stats, before: Stats, config: DriftConfig) -> list[dict[str, Any] | None]:
    error = _check("error_rate", "rise of the error rate", *error_rise(now, before), config.error_rate)
    if not _good(now) or not _good(before):
        return [error]
    psi, psi_noise = label_psi(now, before)
    js, js_noise = label_js(now, before)
    return [
        _check("label_psi", "label shift (PSI)", psi, psi_noise, config.label_psi),
        _check("label_js", "label shift (Jensen-Shannon)", js, js_noise, config.label_js),
        _check("score_ks", "score shift (Kolmogorov-Smirnov)", *score_ks(now, before), config.score_ks),
        _optional(
            "embedding_cosine", "embedding shift (cosine)", embedding_shift(now, before), config.embedding_cosine
        ),
        error,
        _optional(
            "head_divergence", "rise of the heads' divergence", divergence_rise(now, before), config.head_divergence
        ),
    ]


def _check(name: str, title: str, value: float, noise: float, threshold: float) -> dict[str, Any]:
    allowed = max(threshold, float(noise))
    judged = name == "label_psi" or noise < NO_CHECK
    return {
        "name": name, "title": title, "value": float(value), "threshold": threshold, "noise": float(noise),
        "allowed": allowed, "judged": judged, "breach": bool(judged and value > allowed),
    }  # fmt: skip


def _optional(name: str, title: str, rise: tuple[float, float] | None, threshold: float) -> dict[str, Any] | None:
    return None if rise is None else _check(name, title, *rise, threshold)


def _good(stats: Stats) -> int:
    return sum(stats["labels"].values())


def label_psi(now: Stats, before: Stats) -> tuple[float, float]:
    """Population stability index of the labels, and its noise level.

    PSI = sum over cells of (q - p) ln(q / p). Without a shift it is (1/n + 1/m) times a chi-square variable with one degree
    of freedom less than cells: Yurdakul and Naranjo, "Statistical properties of the population stability index", J. Risk Model
    Validation 14 (2020). The chi-square quantile is Wilson and Hilferty's (1931).
    """
    q, p, cells, scale = _shares(now, before)
    return float(((q - p) * np.log(q / p)).sum()), scale * _chi_square(cells - 1)


def label_js(now: Stats, before: Stats) -> tuple[float, float]:
    """Jensen-Shannon distance of the labels (square root of the divergence in bits, 0 to 1), and its noise level.

    Lin (1991), eq. 4.1. For small shifts the divergence is PSI / (8 ln 2), which gives the noise.
    """
    q, p, cells, scale = _shares(now, before)
    mean = (p + q) / 2
    bits = float((p * np.log2(p / mean) + q * np.log2(q / mean)).sum() / 2)
    return math.sqrt(max(bits, 0)), math.sqrt(scale * _chi_square(cells - 1) / (8 * math.log(2)))


def _shares(now: Stats, before: Stats) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Shares of tonight's and of the reference's rows by cell, the number of cells, and 1/n + 1/m."""
    labels = sorted({*now["labels"], *before["labels"]}, key=int)
    counts = np.array([[s["labels"].get(label, 0) for label in labels] for s in (now, before)], np.float64)
    n, m = counts.sum(1)
    cells = _cells(counts.sum(0) / (n + m) * min(n, m))
    counts = np.stack([np.bincount(cells, row) for row in counts]) + 0.5  # Jeffreys: no logarithm of zero
    shares = counts / counts.sum(1, keepdims=True)
    return shares[0], shares[1], counts.shape[1], 1 / n + 1 / m


def _cells(expected: np.ndarray) -> np.ndarray:
    """The cell of each class: one of its own where `EXPECTED` rows are expected, else shared with its rare neighbours.

    Neighbours, because class numbers often go by kind (ImageNet's dogs follow each other).
    """
    cells, shared, open_cell, total = np.zeros(len(expected), int), 0.0, 0, 0
    for i, rows in enumerate(expected):
        if rows >= EXPECTED:
            cells[i], total = total, total + 1
            continue
        if not shared:
            open_cell, total = total, total + 1
        cells[i], shared = open_cell, shared + rows
        if shared >= EXPECTED:
            shared = 0.0
    return cells


def _chi_square(freedom: int) -> float:
    """The value that a chi-square variable exceeds once in 100,000."""
    if freedom < 1:
        return 0.0
    part = 2 / (9 * freedom)
    return freedom * (1 - part + Z * math.sqrt(part)) ** 3


def score_ks(now: Stats, before: Stats) -> tuple[float, float]:
    """Kolmogorov-Smirnov statistic of the score histograms, and its noise level (binning only lowers the statistic)."""
    q, p = (np.asarray(stats["scores"], np.float64) for stats in (now, before))
    n, m = q.sum(), p.sum()
    return float(np.abs(np.cumsum(q / n) - np.cumsum(p / m)).max()), KOLMOGOROV * math.sqrt(1 / n + 1 / m)


def embedding_shift(now: Stats, before: Stats) -> tuple[float, float] | None:
    """1 - cosine of the mean embeddings, and its noise level; None without embeddings.

    The mean of n vectors is off by tr(S) / n in squared length; tr(S) is at least mean norm squared - squared norm of the mean.
    """
    if now["embedding"] is None or before["embedding"] is None or len(now["embedding"]) != len(before["embedding"]):
        return None
    n, m = _good(now), _good(before)
    a, b = np.asarray(now["embedding"]) / n, np.asarray(before["embedding"]) / m
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    if not lengths:
        return None
    spread = max((before["norm"] / m) ** 2 - float(b @ b), 0.0)
    noise = EMBEDDING_NOISE * spread * (1 / n + 1 / m) / (2 * float(b @ b))
    return 1 - float(a @ b) / lengths, noise


def error_rise(now: Stats, before: Stats) -> tuple[float, float]:
    """By how much the share of error rows rose, and its noise level (two-proportion z)."""
    bad, bad_before = sum(now["errors"].values()), sum(before["errors"].values())
    n, m = now["rows"], before["rows"]
    return bad / n - bad_before / m, Z * _deviation((bad + bad_before) / (n + m), n, m)


def divergence_rise(now: Stats, before: Stats) -> tuple[float, float] | None:
    """By how much the mean head divergence rose, in bits, and its noise level; None where the heads were not compared.

    A variable in [0, 1] of mean u has at most the variance u (1 - u) (Bhatia and Davis, 2000).
    """
    if now["divergence"] is None or before["divergence"] is None:
        return None
    n, m = _good(now), _good(before)
    mean = (now["divergence"] + before["divergence"]) / (n + m)
    return now["divergence"] / n - before["divergence"] / m, Z * _deviation(min(mean, 1.0), n, m)


def _deviation(mean: float, n: int, m: int) -> float:
    return math.sqrt(mean * (1 - mean) * (1 / n + 1 / m))


def _moved(now: Stats, before: Stats) -> list[dict[str, Any]]:
    n, m = max(_good(now), 1), max(_good(before), 1)
    shares = [
        (k, now["labels"].get(k, 0) / n, before["labels"].get(k, 0) / m) for k in {*now["labels"], *before["labels"]}
    ]
    shares.sort(key=lambda one: (-abs(one[1] - one[2]), int(one[0])))
    return [{"label": int(k), "now": a, "before": b} for k, a, b in shares[:MOVED]]


def drift_of(
    output: Output, run: str, stats: dict[str, Any], config: DriftConfig, cut_off: Sequence[dict[str, Any]] = ()
) -> dict[str, Any] | None:
    """What `judge` says of `stats`, the sums of the run called `run`; None for a run without new rows.

    cut_off: records of runs (`history.cut_off`) whose rest this one labelled. Sources are often sorted by class, so neither part
    is like a night, and none of them is judged or a reference.
    """
    if not stats["rows"]:
        return None
    if left := [record for record in cut_off if record.get("rows")]:
        why = f"it went on with what the run of {left[0]['started'][:16]} left, which was {left[0]['state']}"
        return {"reference": {"runs": 0, "rows": 0}, "rows": stats["rows"], "checks": [], "moved": []} | _verdict(PART, why)
    before = [stats for _, stats in zip(range(config.history), stats_before(output, run), strict=False)]
    return judge(stats, before[::-1], config)


def stats_before(output: Output, run: str) -> Iterator[dict[str, Any]]:
    """The sums of earlier runs with new rows that were whole nights, latest first; reads no more records than are asked for."""
    for name in reversed([name for name in run_names(output) if name < run]):
        record = output.read_json(f"runs/{name}.json") or {}
        part = record.get("state") in CUT_OFF or (record.get("drift") or {}).get("verdict") == PART
        if record.get("rows") and record.get("stats") and not part:
            yield record["stats"]
