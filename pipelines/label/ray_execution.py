"""Ray Data runs the chunks: descriptors in, one small record a chunk out, also when replicas or nodes die."""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import ray

from levit_batch.errors import JobError
from levit_batch.job.chunks import Chunk, chunk_table
from levit_batch.results.page.formats import plural
from pipelines.cluster.local import slow_store
from pipelines.cluster.session import capacity, size_of
from pipelines.cluster.sizing import Size
from pipelines.cluster.supervise import is_lost, none_lives, supervise
from pipelines.label.pace import measured_decode
from pipelines.label.prepare import Prepared
from pipelines.label.record import RunRecord
from pipelines.label.replica import DecodeTask, Replica
from pipelines.label.work import Work

GROUPS_PER_REPLICA = 25  # tasks that a replica gets through a long job, at the least
LARGEST_GROUP = 16  # chunks in one task, until that makes more than MOST_GROUPS of them: each costs the driver a millisecond
MOST_GROUPS = 6_000


class RayExecution:
    """The chunks of one run on their way through Ray Data."""

    def __init__(self, prepared: Prepared, run: RunRecord, work: Work, say: Callable[[str], None]):
        self.prepared, self.run, self.work, self.say = prepared, run, work, say
        self.local = prepared.config.compute.address is None  # Ray was started for this job
        # In Ray's object store, from where every replica takes it, and no longer in this process.
        self.model = functools.partial(ray.get, ray.put(prepared.runnable))
        prepared.forget_model()

    def records(self, chunks: list[Chunk]) -> Iterator[dict[str, Any]]:
        """A record of each of `chunks` as it is finished, also when nodes are lost: those left start again on the others."""
        left = {str(chunk): chunk for chunk in chunks}
        while left:
            try:
                for record in self._once(list(left.values())):
                    left.pop(record["chunk"], None)
                    yield record
                return
            except Exception as e:
                if not is_lost(e):
                    raise
                if self.local:
                    raise JobError(none_lives()) from None
                self.say(
                    f"all replicas were lost with their nodes; {plural(len(left), 'chunk')} left: looking for room for others"
                )

    def _once(self, chunks: list[Chunk]) -> Iterator[dict[str, Any]]:
        """One Ray Data execution: descriptors of chunks in, a record of each chunk out as it is finished."""
        size = self._size(len(chunks))
        supervise(set_context(stages=2 if size.decoders else 1), self.local)
        # from_arrow would start a task for each block, only to count its rows.
        dataset = ray.data.from_blocks(group(chunks, (size.decoders or size.replicas)[1]))
        options = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}
        if size.decoders:
            dataset = dataset.map_batches(
                DecodeTask, fn_constructor_args=(self.work,), num_cpus=1, compute=pool(size.decoders), **options
            )
        dataset = dataset.map_batches(
            Replica,
            fn_constructor_args=(self.work, self.model),
            num_cpus=size.cpus,
            num_gpus=size.gpus,
            compute=pool(size.replicas),
            accelerator_type=size.accelerator_type,
            # Ray Data wants a number from whoever uses a GPU; a row is a whole chunk, so one at a time is right.
            **options | {"batch_size": 1 if size.gpus else None},
        )
        for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for record in batch["record"].to_pylist():
                yield json.loads(record)

    def _size(self, tasks: int) -> Size:
        prepared, compute = self.prepared, self.prepared.config.compute
        # Nobody else wants the CPUs of a Ray that was started for this job.
        measured = measured_decode(prepared.output, prepared.gpu) if compute.address else None
        size = size_of(compute, prepared.gpu, tasks, measured, self.say)
        if size.decoders and self.run.size is None and not compute.address:
            self.warn_of_slow_store()
        self.run.size = self.run.size or size  # a second pass over a few chunks is smaller
        return size

    def warn_of_slow_store(self) -> None:
        """Ray does say so, but `silently` has it say nothing."""
        if warning := slow_store(sum(nodes.resources.get("object_store_memory", 0) for nodes in capacity().now)):
            self.say(warning)


def pool(size: tuple[int, int, int]) -> Any:
    """Actors that start all at once; two tasks and threads each: one computes, the other reads and writes."""
    from ray.data import ActorPoolStrategy

    least, most, first = size
    return ActorPoolStrategy(
        min_size=least,
        max_size=most,
        initial_size=first,
        max_tasks_in_flight_per_actor=2,
        max_concurrent_calls_per_actor=2,
        enable_true_multi_threading=True,
    )


def set_context(stages: int) -> Any:
    """Ray Data's settings for this job, all in one place. stages: how many of its operators share the nodes."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.target_max_block_size = 1  # each record, and each decoded chunk, is a block of its own, at once
    context.max_errored_blocks = 0  # replicas turn failures into records: what still raises is a bug
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # Each turn of Ray Data's loop then costs less: one stage needs no reservation, and nobody reads the detectors.
    context.op_resource_reservation_enabled = stages > 1
    context.issue_detectors_config.detectors = []
    context.memory_usage_poll_interval_s = None  # each look at a replica's memory takes it milliseconds
    context.execution_options.preserve_order = False
    return context


def group(chunks: list[Chunk], replicas: int) -> list[pa.Table]:
    """Descriptors in blocks of several, so that the driver is not asked for each; fewer and fewer at the end, to end together."""
    largest = max(LARGEST_GROUP, len(chunks) // MOST_GROUPS)
    largest = min(largest, len(chunks) // (replicas * GROUPS_PER_REPLICA))
    blocks, at = [], 0
    while at < len(chunks):
        size = max(1, min(largest, (len(chunks) - at) // (replicas * 4)))  # two are under way in each replica
        blocks.append(chunk_table(chunks[at : at + size]))
        at += size
    return blocks
