"""What a run would do, found out without reading an image or changing a file."""

from typing import Any

from levit_batch.job.config import JobConfig
from levit_batch.results.page.formats import plural
from levit_batch.storage.redact import redact
from levit_batch.table.output import Output
from levit_batch.table.plan import Plan
from levit_batch.table.read import shard_names
from pipelines.cluster.session import uses_gpu
from pipelines.label.prepare import Prepared, prepare
from pipelines.label.record import NAMES, named


def describe(config: JobConfig) -> dict[str, Any]:
    """The plan as JSON values. Raises UserError for what would stop the run."""
    output = Output(config.output)
    asked = config.compute.address is None or config.compute.gpus_per_replica != "auto"
    prepared = prepare(config, uses_gpu(config.compute) if asked else had_gpu(output), output)
    prepared.check_output()
    plan = prepared.plan()
    prepared.check_gone(plan, config.output.max_gone_rate)
    return describe_plan(prepared, plan) | {"device_assumed": not asked}


def had_gpu(output: Output) -> bool:
    """Whether the rows in `output` may come from GPUs. A plan joins no cluster: it takes the cluster for what it was before."""
    job = output.read_json("job.json") or {}
    return job.get("values", {}).get("model.backend") == "torch"


def describe_plan(prepared: Prepared, plan: Plan) -> dict[str, Any]:
    config, checkpoint = prepared.config, prepared.checkpoint
    unknown = any(chunk.stop is None for chunk in plan.pending)
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
            "rows": plan.rows,
            "rows_known": not unknown,
            "chunks": plan.chunks,
            "done": {"chunks": len(plan.done), "rows": plan.done_rows},
            "pending": {"chunks": len(plan.pending), "rows": plan.rows - plan.done_rows},
            "new": named(plan.new),
            "changed": named(plan.changed),
            "vanished": {"count": len(plan.vanished), "names": shard_names(prepared.output, plan.vanished[:NAMES])},
            "columns": [f"{field.name}: {field.type}" for field in prepared.columns],
        }
    )


def plan_text(plan: dict[str, Any]) -> str:
    """The plan for a reader at a terminal."""
    source, checkpoint, path = plan["source"], plan["checkpoint"], plan["source"]["path"]
    about = "" if plan["rows_known"] else " (at least: some shards are counted when read)"
    more = "" if plan["rows_known"] else " or more"
    assumed = " (assumed: the cluster is not asked)" if plan["device_assumed"] else ""
    lines = [
        ("source", f"{source['type']}  {path if isinstance(path, str) else ', '.join(path)}" + _at(source)),
        ("checkpoint", f"{checkpoint['name']}{_at(checkpoint)}  {checkpoint['classes']} classes, {checkpoint['dtype']}{assumed}, "
                       f"heads: {checkpoint['heads']}, embedding: {checkpoint['embedding']}"),
        ("output", f"{plan['output']['path']}  ({plan['output']['format']})"),
        ("plan", f"{plural(plan['shards'], 'shard')}, {plural(plan['rows'], 'row')}{about}, {plural(plan['chunks'], 'chunk')}"),
        ("done", f"{plural(plan['done']['rows'], 'row')} in {plural(plan['done']['chunks'], 'chunk')}"),
        ("pending", f"{plural(plan['pending']['rows'], 'row')}{more} in {plural(plan['pending']['chunks'], 'chunk')}"),
    ]  # fmt: skip
    for kind in ("changed", "vanished"):
        if plan[kind]["count"]:
            lines.append((kind, f"{plural(plan[kind]['count'], 'shard')}: {', '.join(plan[kind]['names'])}"))
    lines.append(("columns", ", ".join(column.split(":")[0] for column in plan["columns"])))
    return "\n".join(f"{name:<11}{text}" for name, text in lines)


def _at(where: dict[str, Any]) -> str:
    return f" @ {where['revision']}" if where.get("revision") else ""
