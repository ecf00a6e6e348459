"""Metrics of a finished output, computed again from its tables: no model runs."""

from typing import Any

from levit_batch.card import write_card
from levit_batch.config import SourceConfig
from levit_batch.errors import OutputError
from levit_batch.metrics import measure
from levit_batch.output import Output
from levit_batch.report import RUNS, write_report
from levit_batch.samples import Sample, pick_samples, thumbnails
from levit_batch.scan import job_of, require_files, runs_of, schema_of
from levit_batch.sources import Source, open_source
from levit_batch.truth import TruthTable


def evaluate(output: Output, truth: TruthTable | None = None, pictures: bool = True) -> dict[str, Any]:
    """Compute metrics, write metrics.json, report.html and README.md anew, and return the metrics.

    truth: targets to hold the labels against, in place of the output's own column.
    """
    if truth:
        require_columns(output, truth.keys)
    job, metrics = job_of(output), measure(output, truth, truth.keys if truth else ())
    output.write_json("metrics.json", metrics)
    samples = pick_samples(output)
    samples = with_pictures(job, samples) if pictures else [s | {"image": None, "note": "left out"} for s in samples]
    write_report(output, job, runs_of(output, RUNS), metrics, samples)
    write_card(output, job, metrics)
    return metrics


def require_columns(output: Output, names: list[str]) -> None:
    have = schema_of(require_files(output)[0]).names
    missing = [name for name in names if name not in have]
    if missing:
        raise OutputError(f"{output}: has no column {', '.join(missing)}; its columns are {', '.join(have)}")


def with_pictures(job: dict[str, Any], samples: list[Sample]) -> list[Sample]:
    """`samples` with thumbnails, where the source that `job` names is still there."""
    try:
        source, max_pixels = source_of(job)
    except Exception as e:  # the record may be of another version, or its secrets left out: pictures are an extra
        return [sample | {"image": None, "note": f"the source cannot be opened: {e}"} for sample in samples]
    return thumbnails(source, samples, max_pixels)


def source_of(job: dict[str, Any]) -> tuple[Source, int]:
    """The source that `job` read, and its limit of pixels."""
    config = SourceConfig.model_validate(job["config"]["source"])
    return open_source(config), config.max_image_pixels
