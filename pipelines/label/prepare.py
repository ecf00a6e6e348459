"""From a configuration to everything a run or a plan needs: source, checkpoint, row, job, and what is pending."""

import gc
import importlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from levit_batch.errors import ConfigError, SourceError
from levit_batch.job.chunks import Chunk, Cut, Shard, plan_chunks
from levit_batch.job.config import JobConfig
from levit_batch.job.row import RowSpec, output_schema
from levit_batch.sources.columns.standard import kept_as_written
from levit_batch.sources.footers import Footers
from levit_batch.sources.source import Source, open_source
from levit_batch.table.fingerprint import Job, check_same_job, check_top_k, make_job, write_job
from levit_batch.table.kept_types import kept_before
from levit_batch.table.output import SHARDS, Output
from levit_batch.table.plan import Plan, make_plan
from levit_batch.table.publish import check_gone
from pipelines.cluster.session import Session
from pipelines.label.local_execution import Nursery, runs_here
from pipelines.label.process import quick_imports, return_memory

if TYPE_CHECKING:
    import pyarrow as pa

    from levit_batch.inference.runnable import Runnable
    from levit_batch.levit.checkpoint import Checkpoint


@dataclass
class Prepared:
    """A job, ready to be planned or run. The checkpoint is loaded when it is first needed."""

    config: JobConfig
    source: Source
    output: Output
    shards: list[Shard]
    chunks: Iterable[Chunk]  # to go through more than once
    gpu: bool
    before: dict[str, Any] | None = None  # job.json of earlier runs
    nursery: Nursery | None = None  # where replicas come from in a run without Ray

    @cached_property
    def checkpoint(self) -> "Checkpoint":
        from levit_batch.levit.checkpoint import check_labels_photographs, load_checkpoint

        checkpoint = load_checkpoint(self.config.model.checkpoint, self.config.model.revision)
        check_labels_photographs(checkpoint)
        check_top_k(self.config, len(checkpoint.class_names))
        if self.config.predict.per_head and len(checkpoint.model.heads) < 2:
            raise ConfigError(f"predict.per_head: {checkpoint.name} has one head; set predict.per_head=false")
        return checkpoint

    @property
    def revision(self) -> str | None:
        """The commit of the dataset, where it has one."""
        return self.source.revision

    @property
    def dtype(self) -> str:
        """`model.dtype` with auto resolved: float32 on a CPU, float16 on a GPU."""
        asked = self.config.model.dtype
        return asked if asked != "auto" else "float16" if self.gpu else "float32"

    @cached_property
    def runnable(self) -> "Runnable":
        """The folded model as the replicas run it."""
        from levit_batch.inference.backends.choose import make_runtime
        from levit_batch.inference.fold import fold
        from levit_batch.inference.runnable import make_runnable

        config, checkpoint = self.config, self.checkpoint
        folded = fold(checkpoint.model, config.model.heads, checkpoint.processor)
        runtime = make_runtime(config.model, self.gpu, self.dtype, config.compute.batch_size)
        return make_runnable(folded, config.model, runtime)

    def forget_model(self) -> None:
        """Free the weights; what else is known of the checkpoint stays."""
        del self.runnable
        self.checkpoint = replace(self.checkpoint, model=None)
        return_memory()

    @cached_property
    def targets(self) -> Any:
        """How the source's targets map to the checkpoint's classes; None without a target column."""
        from levit_batch.sources.columns.targets import TargetMap

        if not self.config.source.target_column:
            return None
        return TargetMap.make(self.source.target_type(), self.source.target_names, self.checkpoint.class_names)

    @cached_property
    def spec(self) -> RowSpec:
        checkpoint, predict = self.checkpoint, self.config.predict
        return RowSpec(
            class_names=tuple(checkpoint.class_names),
            embedding_width=checkpoint.config.hidden_sizes[-1],
            top_k=predict.top_k,
            embeddings=predict.embeddings,
            logits=predict.logits,
            per_head=predict.per_head,
            kept=kept_as_written(self.source.kept(), self.config.output.format),
            target=self.targets.output_type if self.targets else None,
            hash=predict.hash,
        )

    @cached_property
    def job(self) -> Job:
        checkpoint, meaning = self.checkpoint, self.targets and self.targets.meaning
        return make_job(
            self.config, checkpoint.digest, checkpoint.processor, self.dtype, self.spec, meaning, self.rounding_backend
        )

    @property
    def rounding_backend(self) -> str | None:
        """The backend, where its numbers are its own: below float32 each rounds in other places."""
        if self.dtype == "float32":
            return None
        from levit_batch.inference.backends.choose import choose, make_runtime

        model = self.config.model
        return choose(model, make_runtime(model, self.gpu, self.dtype, self.config.compute.batch_size))

    @property
    def columns(self) -> "pa.Schema":
        """The columns of the output."""
        return output_schema(self.spec)

    def check_output(self) -> None:
        """Raises OutputError when the output belongs to another job."""
        self.before = check_same_job(self.job, self.output)

    def check_gone(self, plan: Plan, most: float) -> int:
        """The rows that leave the output, as their files are gone. Raises SourceError for more than the share `most`."""
        return check_gone(plan, self.output, self.source.row_names(), self.source.row_name, most)

    def plan(self, afresh: bool = False) -> Plan:
        """The chunks held against what the output has now; afresh: as if it had nothing."""
        return make_plan(self.chunks, self.output, self.config.source.limit, self.shards, self.source.cuts_shards, afresh)

    def write_job(self) -> None:
        self.source.footers.save(whole=self.config.source.limit is None)
        write_job(self.job, self.output, self.before, self.checkpoint, self.dtype, self.source, self.spec.kept)


def prepare(config: JobConfig, gpu: bool, output: Output | None = None, afresh: bool = False) -> Prepared:
    """List the source and look at the output; reads no image and changes nothing. Raises UserError.

    afresh: as if the output had nothing: the types of the kept columns, too, are chosen anew.
    """
    source, output, limit = open_source(config.source), output or Output(config.output), config.source.limit
    source.leave_out, source.footers = output.place.url, Footers(output.place.join(SHARDS))
    source.before = None if afresh else kept_before(config, output)
    shards: list[Shard] = []
    if limit is None:
        shards += source.shards()
        chunks = Cut(shards, config.compute.chunk_rows)
    else:
        listed = (shards.append(shard) or shard for shard in source.shards())  # no further than the limit reaches
        chunks = list(plan_chunks(listed, config.compute.chunk_rows, limit, source.count))
    if not shards:
        raise SourceError(f"source.path: {config.source.path} holds no shards")
    source.kept()
    return Prepared(config, source, output, shards, chunks, gpu)


def get_ready(prepared: Prepared, plan: Plan, session: Session, overwrite: bool) -> None:
    """The checkpoint loaded and held against the output, and, where there is work, what it runs in: side by side, each takes
    seconds."""
    session.callback(gc.unfreeze)  # what quick_imports froze, so that this process can clear it away when it ends
    work = bool(plan.pending)
    with quick_imports(), ThreadPoolExecutor(1) as meanwhile:
        if work and runs_here(prepared.config.compute, prepared.gpu, len(plan.pending)):
            prepared.nursery = session.enter_context(Nursery(session.verbose))
        elif work:
            importlib.import_module("ray")  # alone: starting its processes, one after the other, takes longest
        loaded = meanwhile.submit(load, prepared, work, overwrite)
        if work and prepared.nursery is None:
            session.open()
        loaded.result()


def load(prepared: Prepared, work: bool, overwrite: bool) -> None:
    """Load the checkpoint and hold the job against the output's; fold and export the model when there is work for it."""
    if not overwrite:
        prepared.check_output()
    if prepared.job and work:
        _ = prepared.runnable
        if prepared.nursery is None:
            importlib.import_module("pipelines.label.ray_execution")  # Ray Data takes a second, too
