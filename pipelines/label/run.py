"""The main job: every image of a source gets a label and an embedding.

read -> preprocess -> predict -> write    in replicas, a chunk at a time (execute.py, replica.py)
record, metrics, report                   here, from one small record a chunk
"""

import contextlib
import gc
import importlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from levit_batch.errors import JobError, UserError
from levit_batch.job.config import JobConfig
from levit_batch.results.drift import drift_of
from levit_batch.table.fingerprint import versions
from levit_batch.table.lock import locked
from levit_batch.table.output import UNMEASURED, Output
from levit_batch.table.plan import Progress
from levit_batch.table.publish import publish, reopen_errors, retire
from pipelines.cluster.session import check_paths, ray_session, uses_gpu
from pipelines.label.prepare import Prepared, prepare
from pipelines.label.quick_imports import quick_imports
from pipelines.label.record import RunRecord
from pipelines.screen.progress import Display

REFUSALS = 3  # by the output, in a row, for each replica: once may be a moment
PASSES = 3  # over chunks that failed: a source that answers again a minute later costs nothing


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
    drop_vanished: bool = False,
    verbose: bool = False,
    display: Display | None = None,
    wait_for_lock: float = 0.0,
) -> RunResult:
    """Label what is pending and write the run's record, the metrics and the page. Raises LevitBatchError.

    While another run holds the output, waits up to `wait_for_lock` seconds for it.
    """
    display = display or Display.silent()
    with contextlib.ExitStack() as stack:
        claim = stack.enter_context(locked(Output(config.output).place, wait_for_lock, display.say))
        started = datetime.now(UTC)
        if config.compute.address is not None:
            stack.enter_context(ray_session(config.compute, verbose))
            check_paths(config)
        prepared = prepare(config, uses_gpu(config.compute))
        progress = prepared.progress()
        begin = bool(progress.pending) or overwrite
        start(stack, prepared, overwrite, begin, verbose)
        claim.require()
        if overwrite:
            prepared.output.delete(prepared.output.own_files())
            progress = prepared.progress()
        prepared.output.require_writable()
        gone = prepared.check_gone(progress, 1.0 if drop_vanished else config.output.max_gone_rate)
        prepared.output.delete(progress.garbage)
        if retry_errors:
            reopen_errors(progress, prepared.output)
        write_job(prepared)
        run = RunRecord(prepared, progress, started, gone)
        stack.enter_context(run.recorded())
        if progress.pending or progress.replacements or (progress.vanished and (drop_vanished or prepared.source.cuts_shards)):
            prepared.output.write(UNMEASURED, b"")
        if progress.pending and not begin and config.compute.address is None:
            stack.enter_context(ray_session(config.compute, verbose))
        with display.run(progress):
            label(prepared, progress, run, display, redo=retry_errors)
            settle(prepared, progress, run, claim.require, drop_vanished)
        result = finish(prepared, progress, run)
    too_many = error_rate(result.metrics) > config.output.max_error_rate
    return replace(result, exit_code=3) if too_many else result


def start(stack: contextlib.ExitStack, prepared: Prepared, overwrite: bool, begin: bool, verbose: bool) -> None:
    """The checkpoint loaded and held against the output, and, where there is work, Ray: side by side, each takes seconds."""
    compute = prepared.config.compute
    begin_ray = begin and compute.address is None
    stack.callback(gc.unfreeze)  # what quick_imports froze, so that this process can clear it away when it ends
    with quick_imports(), ThreadPoolExecutor(1) as meanwhile:
        if begin_ray:
            importlib.import_module("ray")  # alone: starting its processes, one after the other, takes longest
        ready = meanwhile.submit(get_ready, prepared, overwrite, begin)
        if begin_ray:
            stack.enter_context(ray_session(compute, verbose))
        ready.result()


def get_ready(prepared: Prepared, overwrite: bool, begin: bool) -> None:
    """Load the checkpoint and hold the job against the output's; fold and export the model when there is work for it."""
    if not overwrite:
        prepared.check_output()
    if prepared.job and begin:
        _ = prepared.runnable
        importlib.import_module("pipelines.label.execute")  # Ray Data takes a second, too


def label(prepared: Prepared, progress: Progress, run: RunRecord, display: Display, redo: bool) -> None:
    """Run the pending chunks through Ray Data, those that failed up to `PASSES` times.

    Raises UserError for what no chunk will fare better with: an output that took none of the last `REFUSALS` of each replica.
    """
    pending = progress.pending
    if not pending:
        return
    from pipelines.label.execute import Execution  # Ray Data: not before there is work

    execution, refused = Execution(prepared, run, redo, display.say), 0
    for _ in range(PASSES):
        run.forget_failures(pending)
        for record in execution.records(pending):
            refused = refused + 1 if record.get("refused") else 0
            if record.get("exit_code") == UserError.exit_code and refused in (0, REFUSALS * run.size.replicas[1]):
                raise UserError(record["failed"])  # no chunk will fare better
            run.add(record)
            display.add(record)
        pending = [chunk for chunk in pending if str(chunk) in run.again]
        if not pending:
            return
        time.sleep(1)


def settle(
    prepared: Prepared, progress: Progress, run: RunRecord, require: Callable[[], None], drop_vanished: bool
) -> None:
    """What was labelled aside takes its place in the table, and what the source no longer has leaves it, or is kept."""
    output, moved = prepared.output, prepared.source.cuts_shards
    require()
    if progress.pending:  # a replica that died may have left half a file
        output.delete(output.leftovers())
    failed = {chunk.shard for chunk in progress.pending if str(chunk) in run.failed}
    complete = publish(progress, output, require, failed, together=moved)
    if drop_vanished or (moved and complete and not failed):  # then their rows stand in other shards
        retire(progress.vanished, output, require)
        run.retired, progress.vanished = bool(progress.vanished), []


def error_rate(metrics: dict[str, Any]) -> float:
    return sum(metrics["errors"].values()) / metrics["rows"] if metrics["rows"] else 0.0


def write_job(prepared: Prepared) -> None:
    """`job.json`: what this job is. Written before the first chunk, so that no chunk is ever without it."""
    checkpoint = prepared.checkpoint
    said = {
        **prepared.job.stored,
        "created": (prepared.before or {}).get("created") or datetime.now(UTC).isoformat(timespec="seconds"),
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
    """Record, metrics, page and card; then how it ended."""
    if run.failed:
        run.write("failed")
        chunk, reason = next(iter(run.failed.items()))
        raise JobError(
            f"{len(run.failed)} of {progress.chunks} chunks failed; everything else is written, and the same command tries "
            f"them again. {chunk}: {reason}"
        )
    unmeasured = prepared.output.place.join(UNMEASURED)
    metrics = prepared.output.read_json("metrics.json")
    untouched = not (progress.pending or progress.replacements or run.retired)
    if metrics and untouched and not unmeasured.exists():
        return RunResult(0, run.write("nothing new"), metrics)
    state = "done with errors" if run.errors else "done" if progress.pending else "nothing new"
    drift = drift_of(prepared.output, run.name, run.stats(), prepared.config.drift)
    record = run.write(state, drift=drift)
    from levit_batch.results.evaluate import evaluate

    metrics = evaluate(prepared.output, prepared.source)
    unmeasured.delete()
    return RunResult(0, record, metrics)
