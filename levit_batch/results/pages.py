"""What people look at after a run: the page and the dataset card."""

from typing import Any

from levit_batch.results.page.card import write_card
from levit_batch.results.page.report import RUNS, write_report
from levit_batch.results.page.samples import pick_samples, thumbnails
from levit_batch.table.read import job_of, runs_of
from pipelines.label.prepare import Prepared


def write_pages(prepared: Prepared, metrics: dict[str, Any]) -> None:
    """Write report.html and README.md of a finished run, whose record and metrics are written."""
    output, job = prepared.output, job_of(prepared.output)
    samples = thumbnails(prepared.source, pick_samples(output), prepared.config.source.max_image_pixels)
    write_report(output, job, runs_of(output, RUNS), metrics, samples)
    write_card(output, job, metrics)
