"""What a fine-tuning will train on, found out before anything is written: chunks, classes, and what makes it this one."""

from typing import Any

from levit_batch.errors import SourceError
from levit_batch.job.chunks import Chunk, plan_chunks
from levit_batch.levit.backbone import check_backbone
from levit_batch.sources.source import Source
from levit_batch.storage.redact import redact
from levit_batch.table.read import job_of, open_output
from levit_batch.training.config import FinetuneConfig, TrainSourceConfig
from levit_batch.training.data import open_training_source
from levit_batch.training.feed import TrainPlan
from levit_batch.training.stored import StoredEmbeddings
from levit_batch.training.student import build_student, load_teacher, starting_point
from levit_batch.training.targets import ClassColumn, student_names

LIMITS = ("decode_timeout", "max_image_pixels", "max_image_bytes", "url_max_bytes", "url_timeout")  # of reading
SHARES = 16  # chunks for each of several workers, at least: then none gets much more than another


def make_plan(config: FinetuneConfig) -> tuple[TrainPlan, dict[str, Any]]:
    """The plan, and the flat values that must stay the same for a training to go on.

    Raises SourceError, CheckpointError or ConfigError for everything that can be wrong before the first image is read.
    """
    start = starting_point(config.model)
    source = open_training_source(config.source)
    for one in (config.source, config.validation.source):
        if one and one.type == "output":
            check_backbone(job_of(open_output(one.path)), start, one.path)
    chunks, rows = _chunks(source, config)
    names = student_names(source, start, chunks)
    _check_columns(source, config.source, names)
    build_student(config, start, names)
    load_teacher(config, names)
    if config.validation.source is None:
        plan = TrainPlan(tuple(names), chunks, round(rows * (1 - config.validation.fraction)), chunks)
    else:
        validation = open_training_source(config.validation.source)
        _check_columns(validation, config.validation.source, names)
        plan = TrainPlan(tuple(names), chunks, rows, _chunks(validation, config)[0])
    values = _values(config, plan, start.digest if start else None)
    return plan, values | (source.marks if isinstance(source, StoredEmbeddings) else {})


def _check_columns(source: Source, config: TrainSourceConfig, names: list[str]) -> None:
    source.kept()
    ClassColumn(source, config.target_column, "source.target_column", names)
    if config.teacher_column:
        ClassColumn(source, config.teacher_column, "source.teacher_column", names)


def _chunks(source: Source, config: FinetuneConfig) -> tuple[tuple[Chunk, ...], int]:
    """The chunks of a source and how many rows they hold; small enough that every worker gets a fair share."""
    if isinstance(source, StoredEmbeddings):
        return _counted(source, tuple(source.chunks()))
    shards = list(source.shards())
    most, workers = config.compute.chunk_rows, config.compute.workers
    if workers > 1:
        known = sum(shard.rows or 0 for shard in shards)
        most = max(1, min(most, -(-known // (SHARES * workers))))
    return _counted(source, tuple(plan_chunks(shards, most, source.config.limit, source.count)))


def _counted(source: Source, chunks: tuple[Chunk, ...]) -> tuple[tuple[Chunk, ...], int]:
    rows = sum(_rows(source, chunk) for chunk in chunks)
    if not rows:
        raise SourceError(f"source.path: {source.config.path} holds no rows; there is nothing to train on")
    return chunks, rows


def _rows(source: Source, chunk: Chunk) -> int:
    """Rows of a chunk; those of formats without an index are counted by reading."""
    return sum(len(table) for table in source.read(chunk)) if chunk.rows is None else chunk.rows


def _values(config: FinetuneConfig, plan: TrainPlan, digest: str | None) -> dict[str, Any]:
    """Everything that shapes the result. Where and how fast it runs does not; the number of workers does."""
    values = _flat(config.model_dump(mode="json", exclude={"output", "compute"}))
    values = {key: value for key, value in values.items() if key.rpartition(".")[2] not in LIMITS}
    values |= {"compute.workers": config.compute.workers, "classes": list(plan.names), "start": digest}
    chunks = (*plan.chunks, *plan.validation_chunks)
    return redact(values | {"shards": sorted({f"{chunk.shard} {chunk.version}" for chunk in chunks})})


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
