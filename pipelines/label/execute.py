"""The chunks go to replicas, through Ray Data or in a few processes of this machine, and one small record of each comes back."""

import functools
import importlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from levit_batch.errors import UserError
from levit_batch.job.chunks import Chunk
from levit_batch.table.plan import Plan
from pipelines.label.prepare import Prepared
from pipelines.label.record import RunRecord
from pipelines.label.work import Work
from pipelines.screen.progress import Display

REFUSALS = 3  # by the output, in a row, for each replica: once may be a moment
PASSES = 3  # over chunks that failed: a source that answers again a minute later costs nothing


class Execution(Protocol):
    """Replicas at work, for as long as a run lasts."""

    def records(self, chunks: list[Chunk]) -> Iterator[dict[str, Any]]:
        """A record of each of `chunks` as it is finished or has failed, also when replicas die. Sets the run's `size`."""
        ...


def label_pending(prepared: Prepared, plan: Plan, run: RunRecord, display: Display, redo: bool) -> None:
    """Have the pending chunks labelled, those that failed up to `PASSES` times.

    Raises UserError for what no chunk will fare better with: an output that took none of the last `REFUSALS` of each replica.
    """
    execution, pending, refused = begin(prepared, run, redo, display.say), plan.pending, 0
    for _ in range(PASSES):
        run.forget_failures(pending)
        for record in execution.records(pending):
            refused = refused + 1 if record.get("refused") else 0
            if record.get("exit_code") == UserError.exit_code and refused in (0, REFUSALS * run.size.replicas[1]):
                raise UserError(record["failed"])  # no chunk will fare better
            run.add(record)
            display.add(record)
            import_pages()  # not before there is something to see: the replicas need the cores to start
        pending = [chunk for chunk in pending if str(chunk) in run.again]
        if not pending:
            return
        time.sleep(1)


@functools.cache
def import_pages() -> None:
    """matplotlib takes half a second of a core, which this process has to spare while others label."""
    threading.Thread(target=importlib.import_module, args=("levit_batch.results.evaluate",), daemon=True).start()


def begin(prepared: Prepared, run: RunRecord, redo: bool, say: Callable[[str], None]) -> Execution:
    """The job handed to what `get_ready` has opened for it."""
    work = make_work(prepared, run.name, redo)
    if prepared.nursery is None:
        from pipelines.label.ray_execution import RayExecution

        return RayExecution(prepared, run, work, say)
    from pipelines.label.local_execution import LocalExecution

    return LocalExecution(prepared, run, work, say)


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
