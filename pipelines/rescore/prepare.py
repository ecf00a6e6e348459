"""From a finished table and a checkpoint to the table that its heads make: what both must have in common, found out first."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from levit_batch.errors import ConfigError, OutputError, SourceError, brief
from levit_batch.inference.score import Scorer
from levit_batch.job.config import JobConfig, SourceConfig
from levit_batch.job.load import apply_override, validate
from levit_batch.job.row import RESERVED, RowSpec
from levit_batch.levit.backbone import check_backbone
from levit_batch.levit.checkpoint import Checkpoint, load_checkpoint
from levit_batch.results.evaluate import pictures_from
from levit_batch.sources.columns.targets import TargetMap
from levit_batch.sources.source import Source
from levit_batch.storage.redact import stored_address
from levit_batch.table.books import up_to_date
from levit_batch.table.fingerprint import Job, check_same_job, check_top_k, make_rescored_job, write_rescored_job
from levit_batch.table.output import Output
from levit_batch.table.pieces import Pieces, reopen_rewritten
from levit_batch.table.plan import Plan, make_plan
from levit_batch.table.read import first_file, job_of, open_output, schema_of

SETTABLE = ("predict.", "output.", "model.heads", "model.revision", "drift.")


@dataclass
class Rescoring:
    """A table that is made from the embeddings of another.

    of, there: the other, and its job.json. source: where sample pictures are read again, or why they are not.
    """

    config: JobConfig
    of: Output
    there: dict[str, Any]
    output: Output
    checkpoint: Checkpoint
    schema: pa.Schema  # of the other table's files
    temperature: float
    source: Source | str
    before: dict[str, Any] | None = None  # job.json of earlier runs

    @property
    def revision(self) -> str | None:
        return self.there.get("dataset_revision")

    @cached_property
    def scorer(self) -> Scorer:
        return Scorer(self.checkpoint, self.config.model.heads, self.config.predict, self.temperature)

    @cached_property
    def pieces(self) -> Pieces:
        return Pieces(self.of, up_to_date(self.of))

    @property
    def new_classes(self) -> bool:
        return self.there["class_names"] != self.checkpoint.class_names

    @cached_property
    def targets(self) -> TargetMap | None:
        """How the table's targets map to the checkpoint's classes; None where they have no class, or no name, in common."""
        if "target" not in self.schema.names:
            return None
        try:
            return TargetMap.make(self.schema.field("target").type, self.there["class_names"], self.checkpoint.class_names)
        except SourceError:  # another truth: it says nothing of these labels
            return None

    @cached_property
    def spec(self) -> RowSpec:
        predict = self.config.predict
        kept = [field for field in self.schema if field.name.lower() not in RESERVED]
        features = {"info": {"features": self.there.get("kept_features", {})}}
        return RowSpec(
            class_names=tuple(self.checkpoint.class_names),
            embedding_width=self.checkpoint.config.hidden_sizes[-1],
            top_k=predict.top_k,
            embeddings=predict.embeddings,
            logits=predict.logits,
            per_head=predict.per_head,
            kept=pa.schema(kept, metadata={"huggingface": json.dumps(features)}),
            target=self.targets.output_type if self.targets else None,
            hash=predict.hash,
        )

    @cached_property
    def job(self) -> Job:
        return make_rescored_job(self.there, self.config, self.checkpoint.digest, self.spec, self.temperature)

    def check_output(self) -> None:
        """Raises OutputError when the new table's folder belongs to another job."""
        self.before = check_same_job(self.job, self.output)

    def plan(self, afresh: bool = False) -> Plan:
        """The other table's rows held against those that the new one has."""
        plan = make_plan(self.pieces.chunks(), self.output, None, self.pieces.shards.values(), False, afresh)
        reopen_rewritten(plan, self.output, self.pieces)
        return plan

    def write_job(self) -> None:
        origin = {
            "path": stored_address(str(self.of)), "fingerprint": self.there["fingerprint"], "digest": self.there["digest"],
            "checkpoint": self.there["config"]["model"]["checkpoint"], "temperature": self.temperature,
        }  # fmt: skip
        write_rescored_job(self.job, self.output, self.before, self.checkpoint, self.there, origin)


def prepare(of: str, checkpoint: str, out: str, overrides: Sequence[str] = (), temperature: float = 1.0) -> Rescoring:
    """Look at the table `of` and load the checkpoint. Raises UserError for what does not go together; writes nothing."""
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"--temperature: {temperature:g} must be above 0")
    table = open_output(of)
    there, schema = job_of(table), schema_of(first_file(table))
    if "embedding" not in schema.names:
        raise OutputError(f"{table}: its embeddings were not written (predict.embeddings=none); label it again with them")
    given = _given(checkpoint, out, overrides)
    heads = load_checkpoint(checkpoint, given["model"].get("revision"))
    check_backbone(there, heads, str(table))
    config = _config(there, given, heads)
    check_top_k(config, len(heads.class_names))
    if config.predict.hash and "image_hash" not in schema.names:
        raise ConfigError(f"predict.hash: {table} has no hashes, and they take the images; label it again with predict.hash=true")
    output = Output(config.output)
    if output.place.path == table.place.path:
        raise ConfigError(f"--out: {output} is the table that is read; name another folder")
    task = Rescoring(config, table, there, output, heads, schema, temperature, pictures_from(there))
    _ = task.scorer  # raises for heads that the checkpoint has not
    return task


def _given(checkpoint: str, out: str, overrides: Sequence[str]) -> dict[str, Any]:
    """What the command line says, in sections."""
    values: dict[str, Any] = {"model": {}, "output": {}}
    for override in overrides:
        if not override.startswith(SETTABLE) or override.startswith("output.path"):
            raise ConfigError(
                f"--set {override}: only predict.*, output.* (but path), drift.*, model.heads and model.revision are free here; "
                "all else is as it was when the table was labelled"
            )
        apply_override(values, override, JobConfig)
    values["model"]["checkpoint"], values["output"]["path"] = checkpoint, out
    return values


def _config(there: dict[str, Any], given: dict[str, Any], checkpoint: Checkpoint) -> JobConfig:
    """The job of the table, as far as the checkpoint can do it, with what is given in place. Raises UserError."""
    stored = {name: there["config"].get(name, {}) for name in ("model", "preprocess", "predict", "output", "drift")}
    stored["model"] = stored["model"] | {"revision": None}
    predict, classes = stored["predict"], len(checkpoint.class_names)
    both = bool(predict.get("per_head")) and len(checkpoint.model.heads) > 1
    stored["predict"] = predict | {"top_k": min(predict.get("top_k", classes), classes), "per_head": both}
    values = {name: section | given.get(name, {}) for name, section in stored.items()}
    try:
        source = SourceConfig.model_validate(there["config"]["source"])
    except ValidationError as e:
        raise OutputError(f"its job.json is of another version of levit-batch: {brief(e)}; label it again") from None
    config = validate(values | {"source": {"path": "."}}, "of the new table", JobConfig)
    return config.model_copy(update={"source": source})
