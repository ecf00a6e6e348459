"""The main job, start to end. It streams the images of a source, chunk by chunk, through actors that each hold one LeViT, and
writes one output row for each input row; kill it anywhere and it goes on.

read -> preprocess -> predict -> write    in replicas, a chunk at a time (execute.py, replica.py)
record, metrics, page                     here, from one small record a chunk (record.py)
"""

from datetime import UTC, datetime

from levit_batch.job.config import JobConfig
from levit_batch.table.lock import locked
from levit_batch.table.output import Output
from levit_batch.table.publish import announce, finish_publish, settle
from levit_batch.table.reopen import reopen_errors
from pipelines.cluster.session import Session, check_paths, uses_gpu
from pipelines.label.execute import label_pending
from pipelines.label.prepare import get_ready, prepare
from pipelines.label.record import RunRecord, RunResult
from pipelines.screen.progress import Display


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
    display, output = display or Display.silent(), Output(config.output)
    with locked(output.place, wait_for_lock, display.say) as claim, Session(config.compute, verbose) as session:
        started = datetime.now(UTC)
        session.join()
        check_paths(config)
        prepared = prepare(config, uses_gpu(config.compute), output, afresh=overwrite)
        finish_publish(output, claim.require)
        plan = prepared.plan(afresh=overwrite)
        if retry_errors:
            reopen_errors(plan, output)
        get_ready(prepared, plan, session, overwrite)

        claim.require()
        output.require_writable()
        gone = prepared.check_gone(plan, 1.0 if drop_vanished else config.output.max_gone_rate)
        output.delete(plan.garbage)
        output.tidy(plan.live.changed)
        prepared.write_job()
        run = RunRecord(prepared, plan, started, gone)
        with run.recorded():
            run.changes = announce(plan, output, drop_vanished)
            with display.run(plan):
                if plan.pending:
                    label_pending(prepared, plan, run, display, redo=retry_errors)
                manifest = settle(plan, output, claim.require, run.failed, drop_vanished, run.files)
            return run.finish(manifest)
