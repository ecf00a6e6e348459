"""One run of the product as it is, but for Ray, which a replica in this process stands for, and the pages."""

import contextlib
import functools
import gc
import json
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

import levit_batch.results.evaluate
import levit_batch.results.page.kept_samples
import levit_batch.sources.imagefolder_runs
import levit_batch.storage.retry
import levit_batch.table.fingerprint
import pipelines.cluster.session
import pipelines.label.execute
import pipelines.label.prepare
import pipelines.label.record
import pipelines.label.run
from levit_batch.errors import LevitBatchError
from levit_batch.job.chunks import chunk_table
from levit_batch.job.config import JobConfig
from levit_batch.table.compact import compact
from levit_batch.table.lock import locked
from levit_batch.table.output import Output
from pipelines.cluster.sizing import Size
from pipelines.label.execute import make_work
from pipelines.label.prepare import Prepared, prepare
from pipelines.label.replica import Replica
from tests.support.nights_faults import Dead, Fault, faulty, settling_all, watch
from tests.support.nights_images import Model

MEAN_ROWS = 6  # of the shards of an image folder


class Engine:
    """Runs jobs while its context lasts."""

    def __init__(self, model: Model):
        self.model, self.planned = model, threading.local()
        self.on_plan: Callable[[Prepared], None] = lambda prepared: None

    def __enter__(self) -> "Engine":
        model = self.model
        self.patch = patch = pytest.MonkeyPatch()
        patch.setattr(pipelines.cluster.session, "ray_session", lambda *_: contextlib.nullcontext())
        patch.setattr(pipelines.label.run, "prepare", self.prepare)
        patch.setattr(pipelines.label.execute, "time", SimpleNamespace(sleep=lambda seconds: None))
        patch.setattr(pipelines.label.prepare, "runs_here", lambda *_: False)
        patch.setattr(pipelines.label.execute, "begin", lambda *told: Direct(model, *told))
        for slow in ("write_report", "write_card"):
            patch.setattr(levit_batch.results.evaluate, slow, lambda *_: None)
        without = {"image": None, "note": None}
        patch.setattr(
            levit_batch.results.page.kept_samples, "thumbnails", lambda _, picks: [pick | without for pick in picks]
        )
        patch.setattr(Prepared, "checkpoint", property(lambda prepared: model.checkpoint))
        patch.setattr(Prepared, "runnable", property(lambda prepared: model.runnable))
        known = functools.cache(levit_batch.table.fingerprint.versions)  # it takes half of a night here
        patch.setattr(levit_batch.table.fingerprint, "versions", known)
        patch.setattr(pipelines.label.record, "versions", known)
        patch.setattr(levit_batch.storage.retry, "FIRST_WAIT", 0.0)
        patch.setattr(levit_batch.sources.imagefolder_runs, "MEAN_ROWS", MEAN_ROWS)
        watch(patch)
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()
        gc.collect()  # what those that were killed left open fails as it closes, in the midst of whatever runs then

    def prepare(self, config: JobConfig, gpu: bool, output: Output, afresh: bool) -> Prepared:
        self.planned.last = prepare(config, gpu, output, afresh)
        self.on_plan(self.planned.last)
        return self.planned.last

    def run(self, config: JobConfig, root: str, fault: Fault | None, **flags: bool) -> "Ended":
        """A run until its end, whatever that is. root: the output's path in its store."""
        self.planned.last = None
        with faulty(fault, root):
            try:
                end = f"exit {pipelines.label.run.run_job(config, **flags).exit_code}"
            except Dead:
                end = "killed"
            except LevitBatchError as e:
                return Ended(f"exit {e.exit_code}", self.planned.last, f"{type(e).__name__}: {e}")
            except OSError as e:
                if fault is None or not fault.happened:
                    raise
                return Ended("traceback", self.planned.last, f"{type(e).__name__}: {e}")
        return Ended(end, self.planned.last)


    def compact(self, config: JobConfig, root: str, fault: Fault | None, rows: int) -> "Ended":
        """`levit-batch compact`, until its end."""
        output = Output(config.output)
        with faulty(fault, root), settling_all():
            try:
                with locked(output.place) as claim:
                    compact(output, claim.require, rows)
            except Dead:
                return Ended("killed", None)
            except (LevitBatchError, OSError) as e:
                if fault is None or not fault.happened:
                    raise
                return Ended("failed", None, f"{type(e).__name__}: {e}")
        return Ended("exit 0", None)


class Ended:
    """How a run ended: exit N, killed or traceback (of an error that a fault made); what it planned, if it came so far."""

    def __init__(self, how: str, planned: Prepared | None, said: str = ""):
        self.how, self.planned, self.said = how, planned, said
        self.done = how in ("exit 0", "exit 3")
        self.shards = {} if planned is None else {shard.name: shard.version for shard in planned.shards}

    def __str__(self) -> str:
        return f"{self.how} {self.said}".strip()


class Direct:
    """In place of what `begin` gives: one replica, in this process, gets the chunks one after the other."""

    def __init__(self, model: Model, prepared: Prepared, run: Any, redo: bool, say: Any):
        run.size = Size((1, 1, 1), 0, 1, None)
        self.replica = Replica(make_work(prepared, run.name, redo), model.runnable)
        self.replica.__dict__["predictor"] = model.predictor

    def records(self, chunks: list[Any]) -> Iterator[dict[str, Any]]:
        for chunk in chunks:
            for block in self.replica(chunk_table([chunk])):
                yield from map(json.loads, block["record"].to_pylist())
