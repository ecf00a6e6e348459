"""How a run ended, in a few lines."""

from typing import Any

from levit_batch.errors import ROW_ERROR_KINDS
from levit_batch.job.config import JobConfig
from levit_batch.results.page.formats import plural
from levit_batch.results.wording import judged_rows, unmatched

MANY_FILES = 10_000


def summary(config: JobConfig, result: Any) -> str:
    """What was written, how fast, what failed, and where to look next."""
    record, metrics = result.record, result.metrics
    out = config.output.path
    lines = [_what(record, metrics)]
    if metrics.get("errors"):
        lines.append(f"{sum(metrics['errors'].values()):,} of {plural(metrics['rows'], 'row')} in the output have an error:")
        lines += [f"  {n:>7,}  {kind}: {ROW_ERROR_KINDS.get(kind, '')}" for kind, n in metrics["errors"].items()]
    if metrics.get("top1") is not None:
        lines.append(
            f"top-1 {metrics['top1']:.4f}{judged_rows(metrics)}"
            + (f", top-5 {metrics['top5']:.4f}" if metrics.get("top5") is not None else "")
        )
    if missed := unmatched(metrics):
        lines.append(missed + (": rename them, or name their classes in source.class_names" if not metrics.get("truth") else ""))
    if record["begun_again"]:
        lines.append(
            f"chunks begun again: {record['begun_again']:,}; the process that had them was killed, perhaps for want of memory "
            "(the system's log tells; fewer compute.replicas need less)"
        )
    if record["shards"]["vanished"]["count"]:
        lines.append(
            f"gone from the source: {plural(record['shards']['vanished']['count'], 'shard')}; "
            "the rows are kept (--drop-vanished)"
        )
    if record["rows_gone"]:
        lines.append(f"{plural(record['rows_gone'], 'row')} went with their files, which are gone from the source")
    if (record.get("drift") or {}).get("verdict") == "drift":
        lines.append(f"drift against {plural(record['drift']['reference']['runs'], 'earlier run')}: {record['drift']['why']}")
    if result.exit_code == 3:
        lines.append(f"more than output.max_error_rate={config.output.max_error_rate:g} of the rows have an error")
    if (record.get("files") or 0) > MANY_FILES:
        lines.append(f"{record['files']:,} files: `levit-batch compact {out}` merges each shard's; `--to COPY` all, in a copy")
    lines.append(f"table: {out}/data   page: {out}/report.html")
    return "\n".join(lines)


def _what(record: dict[str, Any], metrics: dict[str, Any]) -> str:
    if not record["rows"]:
        return f"nothing new: {plural(metrics['rows'], 'row')} {'is' if metrics['rows'] == 1 else 'are'} labelled"
    before = f" ({record['skipped']['rows']:,} more were labelled before)" if record["skipped"]["rows"] else ""
    rows = plural(record["rows"], "row")
    return f"labelled {rows} in {record['seconds']:.1f} s, {record['images_per_second']:,.0f} images/s{before}"
