"""report.html: one self-contained page about an output and its runs. It loads nothing and holds no secret."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import yaml

from levit_batch.job.row import SCHEMA_VERSION
from levit_batch.results.best import Pick
from levit_batch.results.looks import ERRORS
from levit_batch.results.page import formats, plots
from levit_batch.results.page.templates import environment, public_config
from levit_batch.results.wording import against, unmatched
from levit_batch.storage.redact import public_path
from levit_batch.table.output import Output

TOP_LABELS = 30  # bars that stay readable; a job of a thousand classes has no more
TOP_PAIRS = 20
TOP_CLASSES = 15
RUNS = 60  # in the trend
TABLE_RUNS = 15
HARD_ROWS = 5  # classes with fewer judged rows say nothing about being hard


def write_report(
    output: Output, job: dict[str, Any], runs: list[dict[str, Any]], metrics: dict[str, Any], picks: list[Pick]
) -> None:
    """Write `report.html` into `output`.

    job: job.json; runs: `read.runs_of`, oldest first; metrics: `metrics.measure`; picks: `samples.thumbnails`.
    """
    output.write("report.html", render(str(output), job, runs, metrics, picks).encode())


def render(
    path: str, job: dict[str, Any], runs: list[dict[str, Any]], metrics: dict[str, Any], picks: list[Pick]
) -> str:
    """The page as HTML text."""
    names, config = job["class_names"], public_config(job.get("config", {}))
    groups = _grouped(picks, lambda pick: pick["group"])
    errors = groups.pop(ERRORS, [])
    values = {
        "title": _title(config), "path": public_path(path), "job": job, "config": config, "metrics": metrics,
        "runs": runs[-TABLE_RUNS:][::-1], "run": runs[-1] if runs else None, "names": names, "schema_version": SCHEMA_VERSION,
        "groups": groups, "error_examples": _grouped(errors, lambda pick: pick["error"].split(":", 1)[0]),
        "plots": _plots(job, runs, metrics),
        "config_text": yaml.safe_dump(config, sort_keys=False, allow_unicode=True),
        "pairs": _pairs(metrics, names), "hard": _hard(metrics, names), "top_labels": TOP_LABELS,
        "against": against(metrics), "unmatched": unmatched(metrics),
    }  # fmt: skip
    return environment().get_template("report.html").render(values)


def _title(config: dict[str, Any]) -> str:
    path = config.get("source", {}).get("path", "")
    path = path if isinstance(path, str) else ", ".join(path)
    return f"{path} by {config.get('model', {}).get('checkpoint', 'LeViT')}"


def _grouped(picks: list[Pick], key: Callable[[Pick], str]) -> dict[str, list[Pick]]:
    groups: dict[str, list[Pick]] = defaultdict(list)
    for pick in picks:
        groups[key(pick)].append(pick)
    return dict(groups)


def _plots(job: dict[str, Any], runs: list[dict[str, Any]], metrics: dict[str, Any]) -> dict[str, str | None]:
    top = list(metrics["labels"].items())[:TOP_LABELS]
    target = metrics["target"]
    return {
        "labels": plots.label_bars([job["class_names"][int(i)] for i, _ in top], [n for _, n in top]) if top else None,
        "scores": plots.score_histogram(metrics["scores"]["histogram"]) if top else None,
        "reliability": plots.reliability(target["calibration"]["bins"]) if target and target["rows"] else None,
        "trend": _trend(runs[-RUNS:]),
    }


def _trend(runs: list[dict[str, Any]]) -> str | None:
    runs = [run for run in runs if run.get("rows")]
    if len(runs) < 2:
        return None
    series = {
        "new rows": [run["rows"] for run in runs],
        "error rows, % of new rows": [100 * (run.get("error_rate") or 0) for run in runs],
        "images per second": [run.get("images_per_second") for run in runs],
    }
    limits: dict[str, float] = {}
    for name, title in _drift_titles(runs).items():
        series[title] = [_check(run, name).get("value") for run in runs]
        limits[title] = next(c["threshold"] for run in reversed(runs) if (c := _check(run, name)))
    return plots.trend([formats.when(run["started"])[5:16] for run in runs], series, limits)


def _drift_titles(runs: list[dict[str, Any]]) -> dict[str, str]:
    """The drift figures that any run has, by name."""
    return {c["name"]: f"drift: {c['title']}" for run in runs for c in (run.get("drift") or {}).get("checks", ())}


def _check(run: dict[str, Any], name: str) -> dict[str, Any]:
    return next((c for c in (run.get("drift") or {}).get("checks", ()) if c["name"] == name), {})


def _pairs(metrics: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    target = metrics["target"]
    return [
        {"target": names[p["target"]], "label": names[p["label"]], "rows": p["rows"],
         "share": p["rows"] / target["classes"][str(p["target"])]["rows"]}
        for p in (target["confusions"][:TOP_PAIRS] if target else ())
    ]  # fmt: skip


def _hard(metrics: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    """The classes that are right least often."""
    classes = metrics["target"]["classes"] if metrics["target"] else {}
    enough = [(c["accuracy"], names[int(i)], c) for i, c in classes.items() if c["rows"] >= HARD_ROWS]
    return [c | {"name": name} for _, name, c in sorted(enough, key=lambda one: one[:2])[:TOP_CLASSES]]
