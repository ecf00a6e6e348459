"""Metrics of a finished output, computed again from its tables: no model runs."""

from typing import Any

from levit_batch.errors import OutputError, SourceError
from levit_batch.job.config import SourceConfig
from levit_batch.results.metrics import measure
from levit_batch.results.page.card import write_card
from levit_batch.results.page.report import RUNS, write_report
from levit_batch.results.page.samples import Sample, pick_samples, thumbnails
from levit_batch.results.truth import TruthTable
from levit_batch.sources.source import Source, open_source
from levit_batch.storage.redact import is_masked
from levit_batch.table.output import Output
from levit_batch.table.read import job_of, require_files, runs_of, schema_of


def evaluate(output: Output, truth: TruthTable | None = None, pictures: bool | None = None) -> dict[str, Any]:
    """Compute metrics, write metrics.json, report.html and README.md anew, and return the metrics.

    truth: targets to hold the labels against, in place of the output's own column. pictures: whether sample images are read
    again from the source; None: from this machine's disk only, since job.json may be somebody else's.
    """
    if truth:
        require_columns(output, truth.keys)
    job, metrics = job_of(output), measure(output, truth, truth.keys if truth else ())
    output.write_json("metrics.json", metrics)
    samples = pick_samples(output)
    if pictures is False:
        samples = [sample | {"image": None, "note": "left out"} for sample in samples]
    else:
        samples = with_pictures(job, samples, anywhere=bool(pictures))
    _write(output, job, metrics, samples)
    return metrics


def write_pages(output: Output, source: Source, max_pixels: int, metrics: dict[str, Any]) -> None:
    """Write report.html and README.md of a finished run, whose record and metrics are written."""
    _write(output, job_of(output), metrics, thumbnails(source, pick_samples(output), max_pixels))


def _write(output: Output, job: dict[str, Any], metrics: dict[str, Any], samples: list[Sample]) -> None:
    write_report(output, job, runs_of(output, RUNS), metrics, samples)
    write_card(output, job, metrics)


def require_columns(output: Output, names: list[str]) -> None:
    have = schema_of(require_files(output)[0]).names
    missing = [name for name in names if name not in have]
    if missing:
        raise OutputError(f"{output}: has no column {', '.join(missing)}; its columns are {', '.join(have)}")


def with_pictures(job: dict[str, Any], samples: list[Sample], anywhere: bool = False) -> list[Sample]:
    """`samples` with thumbnails, where the source that `job` names is still there, and local or allowed `anywhere`."""
    try:
        source, max_pixels = source_of(job, anywhere)
    except Exception as e:  # the record may be of another version, or its secrets left out: pictures are an extra
        return [sample | {"image": None, "note": f"the source cannot be opened: {e}"} for sample in samples]
    return thumbnails(source, samples, max_pixels)


def source_of(job: dict[str, Any], anywhere: bool = True) -> tuple[Source, int]:
    """The source that `job` read, and its limit of pixels. Raises SourceError for one that cannot be opened again.

    anywhere: also a source that is not on this machine, and URLs in its image column.
    """
    config = SourceConfig.model_validate(job["config"]["source"])
    addresses = [*([config.path] if isinstance(config.path, str) else config.path), *([config.root] if config.root else [])]
    if any(map(is_masked, addresses)):
        raise SourceError(
            "the source cannot be opened again: its address holds a secret, which job.json does not store; the next time put "
            "it into the environment (AWS_*, HF_TOKEN), not into source.path"
        )
    if not anywhere:
        if not all(part.startswith("/") for address in addresses for part in address.split("::")):
            raise SourceError("it is not on this machine's disk; `levit-batch evaluate --pictures` reads it all the same")
        config = config.model_copy(update={"allow_urls": False})
    return open_source(config), config.max_image_pixels
