"""What a run would do, found out without reading an image or changing a file."""

from typing import Any

from levit_batch.job.config import JobConfig
from levit_batch.storage.redact import redact
from levit_batch.table.output import Output
from levit_batch.table.plan import Progress
from levit_batch.table.read import shard_names
from pipelines.cluster.session import uses_gpu
from pipelines.label.prepare import Prepared, prepare
from pipelines.label.record import NAMES, named


def describe(config: JobConfig) -> dict[str, Any]:
    """The plan as JSON values. Raises UserError for what would stop the run."""
    asked = config.compute.address is None or config.compute.gpus_per_replica != "auto"
    prepared = prepare(config, uses_gpu(config.compute) if asked else had_gpu(Output(config.output)))
    prepared.check_output()
    progress = prepared.progress()
    prepared.check_gone(progress, config.output.max_gone_rate)
    return describe_progress(prepared, progress) | {"device_assumed": not asked}


def had_gpu(output: Output) -> bool:
    """Whether the rows in `output` may come from GPUs. A plan joins no cluster: it takes the cluster for what it was before."""
    said = output.read_json("job.json") or {}
    return said.get("values", {}).get("model.backend") == "torch"


def describe_progress(prepared: Prepared, progress: Progress) -> dict[str, Any]:
    config, checkpoint = prepared.config, prepared.checkpoint
    unknown = any(chunk.stop is None for chunk in progress.done + progress.pending)
    return redact(
        {
            "source": {"type": config.source.type, "path": config.source.path, "revision": prepared.source.revision},
            "checkpoint": {
                "name": config.model.checkpoint,
                "revision": checkpoint.revision,
                "digest": checkpoint.digest,
                "classes": len(checkpoint.class_names),
                "embedding": checkpoint.config.hidden_sizes[-1],
                "heads": config.model.heads,
                "dtype": prepared.dtype,
            },
            "output": {"path": config.output.path, "format": config.output.format},
            "fingerprint": prepared.job.fingerprint,
            "shards": len(prepared.shards),
            "rows": progress.rows,
            "rows_known": not unknown,
            "chunks": progress.chunks,
            "done": {"chunks": len(progress.done), "rows": progress.done_rows},
            "pending": {"chunks": len(progress.pending), "rows": progress.rows - progress.done_rows},
            "new": named(progress.new),
            "changed": named(progress.changed),
            "vanished": {"count": len(progress.vanished), "names": shard_names(prepared.output, progress.vanished[:NAMES])},
            "columns": [f"{field.name}: {field.type}" for field in prepared.columns],
        }
    )


def plan_text(said: dict[str, Any]) -> str:
    """The plan for a reader at a terminal."""
    checkpoint, about = (
        said["checkpoint"],
        "" if said["rows_known"] else " (at least: some shards are counted when read)",
    )
    path = said["source"]["path"]
    assumed = " (assumed: the cluster is not asked)" if said["device_assumed"] else ""
    lines = [
        ("source", f"{said['source']['type']}  {path if isinstance(path, str) else ', '.join(path)}" + _at(said["source"])),
        ("checkpoint", f"{checkpoint['name']}{_at(checkpoint)}  {checkpoint['classes']} classes, {checkpoint['dtype']}{assumed}, "
                       f"heads: {checkpoint['heads']}, embedding: {checkpoint['embedding']}"),
        ("output", f"{said['output']['path']}  ({said['output']['format']})"),
        ("plan", f"{said['shards']:,} shards, {said['rows']:,} rows{about}, {said['chunks']:,} chunks"),
        ("done", f"{said['done']['rows']:,} rows in {said['done']['chunks']:,} chunks"),
        ("pending", f"{said['pending']['rows']:,} rows in {said['pending']['chunks']:,} chunks"),
    ]  # fmt: skip
    for kind in ("changed", "vanished"):
        if said[kind]["count"]:
            lines.append((kind, f"{said[kind]['count']:,} shards: {', '.join(said[kind]['names'])}"))
    lines.append(("columns", ", ".join(column.split(":")[0] for column in said["columns"])))
    return "\n".join(f"{name:<11}{text}" for name, text in lines)


def _at(said: dict[str, Any]) -> str:
    return f" @ {said['revision']}" if said.get("revision") else ""
