"""The main job: every image of a source gets a label and an embedding.

read -> preprocess -> predict -> write    in replicas, a chunk at a time (replica.py)
record, metrics, report                   here, from one small record a chunk
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from levit_batch.config import JobConfig
from levit_batch.errors import JobError, UserError
from levit_batch.job import versions
from levit_batch.lock import locked
from levit_batch.metrics import measure
from levit_batch.output import UNMEASURED, Output
from levit_batch.plan import Chunk, chunk_table
from levit_batch.redact import redact
from levit_batch.resume import Progress
from levit_batch.write import read_record
from pipelines.cluster import check_paths, ray_session, size_of, uses_gpu
from pipelines.drift import drift_of
from pipelines.prepare import Prepared, prepare
from pipelines.progress import Display
from pipelines.replica import DecodeTask, Replica, Work
from pipelines.run_record import RunRecord, measured_decode
from pipelines.supervise import is_lost, supervise

PASSES = 3  # over chunks that failed: a source that answers again a minute later costs nothing
GROUPS_PER_REPLICA = 25  # tasks that a replica gets through a long job, at the least
LARGEST_GROUP = 16  # chunks in one task


@dataclass
class RunResult:
    """How a run ended. exit_code: 0 done, 1 failed chunks, 3 too many error rows."""

    exit_code: int
    record: dict[str, Any]
    metrics: dict[str, Any]


def run_job(
    config: JobConfig,
    *,
    overwrite: bool = False,
    retry_errors: bool = False,
    verbose: bool = False,
    display: Display | None = None,
    wait_for_lock: float = 0.0,
) -> RunResult:
    """Label what is pending and write the run's record, the metrics and the page. Raises LevitBatchError.

    While another run holds the output, waits up to `wait_for_lock` seconds for it.
    """
    display = display or Display.silent()
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(Output(config.output), wait_for_lock, display.say))
        if config.compute.address is not None:
            stack.enter_context(ray_session(config.compute, verbose))
            check_paths(config)
        prepared = prepare(config, uses_gpu(config.compute))
        if overwrite and prepared.job:  # the checkpoint is loaded and fits, before anything is deleted
            prepared.output.delete(prepared.output.own_files())
        prepared.check_output()
        prepared.output.require_writable()
        progress = prepared.progress()
        prepared.output.delete(progress.garbage)
        if retry_errors:
            move_error_chunks(progress, prepared.output)
        write_job(prepared)
        run = RunRecord(prepared, progress)
        if progress.pending:
            prepared.output.write(UNMEASURED, b"")
            with ThreadPoolExecutor(1) as meanwhile:  # Ray takes seconds to start, and so may an export
                runnable = meanwhile.submit(lambda: prepared.runnable)
                if config.compute.address is None:
                    stack.enter_context(ray_session(config.compute, verbose))
                runnable.result()
        with display.run(progress), run.recorded():
            label(prepared, progress, run, display, redo=retry_errors)
        if progress.pending:  # a replica that died may have left half a file
            prepared.output.delete(prepared.output.leftovers())
        publish(progress, prepared.output)
        if prepared.source.cuts_shards and not run.failed:
            retire(progress, prepared.output)
        result = finish(prepared, progress, run)
    too_many = error_rate(result.metrics) > config.output.max_error_rate
    return replace(result, exit_code=3) if too_many else result


def label(prepared: Prepared, progress: Progress, run: RunRecord, display: Display, redo: bool) -> None:
    """Run the pending chunks through Ray Data, those that failed up to `PASSES` times."""
    pending = progress.pending
    for _ in range(PASSES if pending else 0):
        run.forget_failures(pending)
        for record in execute(prepared, pending, run, redo, display.say):
            if record.get("exit_code") == UserError.exit_code:  # no chunk will fare better
                raise UserError(record["failed"])
            run.add(record)
            display.add(record)
        pending = [chunk for chunk in pending if str(chunk) in run.again]
        if not pending:
            return
        time.sleep(1)


def execute(
    prepared: Prepared, chunks: list[Chunk], run: RunRecord, redo: bool, say: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """A record of each of `chunks` as it is finished, also when nodes are lost: those left start again on the others."""
    left = {str(chunk): chunk for chunk in chunks}
    while left:
        try:
            for record in execute_once(prepared, list(left.values()), run, redo, say):
                left.pop(record["chunk"], None)
                yield record
            return
        except Exception as e:
            if not is_lost(e):
                raise
            say(f"all replicas were lost with their nodes; {len(left)} chunks are left: looking for room for others")


def execute_once(
    prepared: Prepared, chunks: list[Chunk], run: RunRecord, redo: bool, say: Callable[[str], None]
) -> Iterator[dict[str, Any]]:
    """One Ray Data execution: descriptors of chunks in, a record of each chunk out as it is finished."""
    import ray

    context = set_context()
    supervise(context)
    measured = measured_decode(prepared.output, prepared.gpu)
    size = size_of(prepared.config.compute, prepared.gpu, len(chunks), measured, say)
    run.size = run.size or size  # a second pass over a few chunks is smaller
    work = make_work(prepared, run.name, redo)
    model = ray.put(prepared.runnable)
    dataset = ray.data.from_arrow(group(chunks, 1 if size.decoders else size.replicas[1]))
    options = {"batch_size": None, "batch_format": "pyarrow", "zero_copy_batch": True}
    if size.decoders:
        dataset = dataset.map_batches(
            DecodeTask, fn_constructor_args=(work,), num_cpus=1, compute=pool(size.decoders), **options
        )
    dataset = dataset.map_batches(
        Replica,
        fn_constructor_args=(work, model),
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


def pool(size: tuple[int, int, int]) -> Any:
    """Actors that start all at once; two tasks each, so that none waits for the driver."""
    from ray.data import ActorPoolStrategy

    least, most, first = size
    return ActorPoolStrategy(min_size=least, max_size=most, initial_size=first, max_tasks_in_flight_per_actor=2)


def set_context() -> Any:
    """Ray Data's settings for this job, all in one place."""
    from ray.data import DataContext

    context = DataContext.get_current()
    context.target_max_block_size = 1  # each record, and each decoded chunk, is a block of its own, at once
    context.max_errored_blocks = 0  # replicas turn failures into records: what still raises is a bug
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    return context


def make_work(prepared: Prepared, run: str, redo: bool) -> Work:
    return Work(
        config=prepared.config,
        source=prepared.source,
        output=prepared.output,
        spec=prepared.spec,
        processor=prepared.checkpoint.processor,
        targets=prepared.targets,
        fingerprint=prepared.job.fingerprint,
        run=run,
        redo=redo,
    )


def group(chunks: list[Chunk], replicas: int) -> list[pa.Table]:
    """Descriptors in blocks of several, so that the driver is not asked for each; single at the end, to end together."""
    size = max(1, min(LARGEST_GROUP, len(chunks) // (replicas * GROUPS_PER_REPLICA)))
    tail = max(0, len(chunks) - size * replicas * 2) if size > 1 else 0
    tail -= tail % size
    blocks = [chunks[i : i + size] for i in range(0, tail, size)] + [[chunk] for chunk in chunks[tail:]]
    return [chunk_table(block) for block in blocks]


def move_error_chunks(progress: Progress, output: Output) -> None:
    """`--retry-errors`: done chunks whose files hold error rows become pending, as the files have them."""
    with ThreadPoolExecutor(16) as pool:
        records = list(pool.map(lambda file: read_record(output.place.join(file)), progress.files))
    marked = list(zip(progress.done, progress.files, records, strict=True))
    progress.done = [chunk for chunk, _, record in marked if not record["errors"]]
    progress.files = [file for _, file, record in marked if not record["errors"]]
    progress.pending += [
        chunk if chunk.stop is None else replace(chunk, stop=record["stop"])
        for chunk, _, record in marked
        if record["errors"]
    ]


def error_rate(metrics: dict[str, Any]) -> float:
    return sum(metrics["errors"].values()) / metrics["rows"] if metrics["rows"] else 0.0


def publish(progress: Progress, output: Output) -> None:
    """Let each completely labelled new version of a shard take the place of the one that readers see."""
    staged = output.written("_staging") if progress.replacements else {}
    for shard, replacement in progress.replacements.items():
        names = {file.name for file in staged.get(shard, ())}.union(replacement.keep)
        if replacement.whole and len(names) == replacement.chunks:
            output.stage(shard, replacement.keep)
            output.publish(shard)


def retire(progress: Progress, output: Output) -> None:
    """Delete the rows of shards that were cut out of a listing and are now cut otherwise: other shards hold those rows."""
    live = output.written("data") if progress.vanished else {}
    for shard in progress.vanished:
        output.delete(output.place.join("data", shard, file.name) for file in live[shard])
    progress.vanished = []


def write_job(prepared: Prepared) -> None:
    """`job.json`: what this job is. Written before the first chunk, so that no chunk is ever without it."""
    checkpoint, config = prepared.checkpoint, prepared.config
    said = {
        "fingerprint": prepared.job.fingerprint,
        "created": (prepared.before or {}).get("created") or datetime.now(UTC).isoformat(timespec="seconds"),
        "config": redact(config.model_dump(mode="json")),
        "values": prepared.job.values,
        "digest": checkpoint.digest,
        "form": checkpoint.form,
        "model_revision": checkpoint.revision,
        "dataset_revision": prepared.source.revision,
        "dtype": prepared.dtype,
        "class_names": checkpoint.class_names,
        "processor": checkpoint.processor,
        "schema_version": prepared.job.values["schema_version"],
        "source_columns": {field.name: str(field.type) for field in prepared.source.schema()},
        "versions": versions(),
    }
    if prepared.before != said:
        prepared.output.write_json("job.json", said)


def finish(prepared: Prepared, progress: Progress, run: RunRecord) -> RunResult:
    """Metrics, record, card and page; then how it ended."""
    if run.failed:
        run.write("failed")
        chunk, reason = next(iter(run.failed.items()))
        raise JobError(
            f"{len(run.failed)} of {progress.chunks} chunks failed; everything else is written, and the same command tries "
            f"them again. {chunk}: {reason}"
        )
    unmeasured = prepared.output.place.join(UNMEASURED)
    metrics = prepared.output.read_json("metrics.json")
    if metrics and not (progress.pending or progress.replacements or unmeasured.exists()):
        return RunResult(0, run.write("nothing new"), metrics)
    metrics = measure(prepared.output)
    prepared.output.write_json("metrics.json", metrics)
    state = "done with errors" if run.errors else "done" if progress.pending else "nothing new"
    drift = drift_of(prepared.output, run.name, run.stats(), prepared.config.drift)
    record = run.write(state, drift=drift)
    from pipelines.pages import write_pages  # matplotlib: not before the first chunk

    write_pages(prepared, metrics)
    unmeasured.delete()
    return RunResult(0, record, metrics)
