"""metrics.json, the page and the card of an output, from its tables: at the end of a run, and again when asked. No model runs."""

from typing import TYPE_CHECKING, Any

from levit_batch.errors import OutputError, SourceError
from levit_batch.job.config import SourceConfig
from levit_batch.results.looks import Looks
from levit_batch.results.metrics import measure
from levit_batch.results.metrics import metrics as of_sums
from levit_batch.results.page.card import write_card
from levit_batch.results.page.kept_samples import gather
from levit_batch.results.page.report import RUNS, write_report
from levit_batch.sources.source import Source, open_source
from levit_batch.storage.redact import is_masked
from levit_batch.table.books import up_to_date
from levit_batch.table.kept_types import kept_in
from levit_batch.table.output import Output
from levit_batch.table.read import first_file, job_of, runs_of, schema_of
from levit_batch.table.stats import Stats

if TYPE_CHECKING:
    from levit_batch.results.truth import TruthTable  # pandas


def evaluate(
    output: Output,
    source: Source | str,
    truth: "TruthTable | None" = None,
    sums: Stats | None = None,
    looks: Looks | None = None,
) -> dict[str, Any]:
    """Compute metrics, write metrics.json, report.html and README.md anew, and return the metrics.

    source: where sample images are read again, or why they are not. truth: targets to hold the labels against, in place of
    the output's own column; the metrics then name it. sums, looks: of all rows, where they are known.
    """
    if truth:
        require_columns(output, truth.keys)
    job = job_of(output)
    metrics = of_sums(sums, len(job["class_names"])) if sums else measure(output, truth, truth.keys if truth else ())
    looks = looks or gather(output, up_to_date(output), source)
    metrics["truth"] = truth.name if truth else None
    output.write_json("metrics.json", metrics)
    write_report(output, job, runs_of(output, RUNS), metrics, looks.picks())
    write_card(output, job, metrics)
    return metrics


def require_columns(output: Output, names: list[str]) -> None:
    have = schema_of(first_file(output)).names
    missing = [name for name in names if name not in have]
    if missing:
        raise OutputError(f"{output}: has no column {', '.join(missing)}; its columns are {', '.join(have)}")


def pictures_from(job: dict[str, Any], wanted: bool | None = None) -> Source | str:
    """The source that `job` names, or why no sample image is read from it.

    wanted: None: only from this machine's disk, since job.json may be somebody else's.
    """
    try:
        return "left out" if wanted is False else source_of(job, anywhere=bool(wanted))
    except Exception as e:  # the record may be of another version, or its secrets left out: pictures are an extra
        return f"the source cannot be opened: {e}"


def source_of(job: dict[str, Any], anywhere: bool = True) -> Source:
    """The source that `job` read. Raises SourceError for one that cannot be opened again.

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
    source = open_source(config)
    source.before = kept_in(job, "the output")  # the shard that is first by now may have narrower types
    return source
