"""Other heads on the embeddings of a finished table: a table like any other, without an image. Kill it anywhere and it goes on.

read -> score -> write      in threads, a chunk at a time (score.py)
record, metrics, page       as of any run
"""

from datetime import UTC, datetime

from levit_batch.table.lock import locked
from levit_batch.table.publish import announce, finish_publish, settle
from pipelines.label.record import RunRecord, RunResult
from pipelines.rescore.prepare import Rescoring
from pipelines.rescore.score import scored
from pipelines.screen.progress import Display


def rescore(
    task: Rescoring, *, overwrite: bool = False, display: Display | None = None, wait_for_lock: float = 0.0
) -> RunResult:
    """Score the embeddings of one table with the heads of a checkpoint, into another. Raises LevitBatchError.

    Run again, it does what is new, was replaced or labelled again in the one since; what left it leaves the other.
    """
    display = display or Display.silent()
    output = task.output
    with locked(output.place, wait_for_lock, display.say, setting="--out") as claim:
        started = datetime.now(UTC)
        if not overwrite:
            task.check_output()
        finish_publish(output, claim.require)
        plan = task.plan(afresh=overwrite)
        claim.require()
        output.require_writable()
        output.delete(plan.garbage)
        output.tidy(plan.live.changed)
        task.write_job()
        run = RunRecord(task, plan, started)
        with run.recorded():
            run.changes = announce(plan, output, drop_vanished=True)
            with display.run(plan):
                for record in scored(task, plan.pending, run.name):
                    run.add(record)
                    display.add(record)
                manifest = settle(plan, output, claim.require, run.failed, True, run.files)
            return run.finish(manifest)
