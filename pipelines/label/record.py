"""The record of one run, `runs/<UTC time>.json`, built up from the records of its chunks."""

import contextlib
import dataclasses
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from levit_batch.errors import JobError, OutputError
from levit_batch.job.chunks import Chunk
from levit_batch.results.drift import drift_of
from levit_batch.results.looks import Looks
from levit_batch.results.page.formats import plural
from levit_batch.storage.redact import redact
from levit_batch.table.fingerprint import versions
from levit_batch.table.history import write_down
from levit_batch.table.manifest import Manifest, NewFiles
from levit_batch.table.output import DATA
from levit_batch.table.plan import Plan
from levit_batch.table.read import shard_names
from levit_batch.table.stats import add_stats
from levit_batch.table.target_stats import unmatched_of
from pipelines.cluster.sizing import Size
from pipelines.interrupt import interrupted
from pipelines.label.pace import KEY, Pace
from pipelines.label.prepare import Prepared
from pipelines.label.process import peak_memory
from pipelines.label.work import of_json

STATS_BATCH = 256  # records that are summed up in one go, so that a long job keeps none of them
NAMES = 20  # shard names that a record spells out


@dataclass
class RunResult:
    """How a run ended. exit_code: 0 done, 1 failed chunks, 3 too many error rows."""

    exit_code: int
    record: dict[str, Any]
    metrics: dict[str, Any]


class RunRecord:
    """Sums over the chunks of a run; memory does not grow with their number."""

    def __init__(self, prepared: Prepared, plan: Plan, started: datetime | None = None, gone: int = 0):
        self.prepared, self.plan, self.gone = prepared, plan, gone
        self.started = started or datetime.now(UTC)
        self.name = self.started.strftime("%Y%m%dT%H%M%S.%fZ")[:-4] + "Z"
        self.failed: dict[str, str] = {}
        self.again: set[str] = set()  # those of the failed that may well succeed a moment later
        self.rows = self.chunks = self.bytes = self.unmatched = self.begun_again = 0
        self.errors: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.waited = 0.0
        self.peak: dict[tuple[str, int], int] = {}
        self.gpus: dict[tuple[str, int], dict[str, Any]] = {}
        self.pace = Pace()
        self.files, self.looks, self.blind = NewFiles(), Looks(), []
        self._stats: list[dict[str, Any]] = []
        self.first_chunk: float | None = None
        self.size: Size | None = None
        self.vanished = shard_names(prepared.output, plan.vanished[:NAMES])
        self.count: int | None = None  # chunk files in the whole table
        self.written = False  # whether its end is recorded
        self.changes: bytes | None = None  # its mark, when it changes the table
        self.marked = prepared.output.marked()  # by one before it

    def add(self, record: dict[str, Any]) -> None:
        if "failed" in record:
            self.failed[record["chunk"]] = record["failed"]
            if record["again"]:
                self.again.add(record["chunk"])
            return
        self.chunks += 1
        self.files.add(record)
        self.look(record)
        self.rows += record["rows"]
        self.bytes += record["bytes"]
        self.unmatched += sum(unmatched_of(record["stats"])["names"].values())
        self.begun_again += record.get("begun_again", False)
        self.errors.update(record["errors"])
        self.waited += record.get("waited", 0)
        for stage, seconds in record["seconds"].items():
            self.seconds[stage] += seconds
        process = (record["node"], record["pid"])
        self.peak[process] = max(self.peak.get(process, 0), record.get("peak_memory", 0))
        if record.get("gpu"):
            self.gpus[process] = record["gpu"]
        self.pace.add(record)
        self.first_chunk = self.first_chunk or (datetime.now(UTC) - self.started).total_seconds()
        self._stats.append(record["stats"] | {"target": None})  # the manifest keeps that: it grows with confused pairs
        if len(self._stats) >= STATS_BATCH:
            self._stats = [add_stats(self._stats)]

    def look(self, record: dict[str, Any]) -> None:
        """Keep what the chunk showed; the record of a chunk that was labelled before its replica died shows nothing."""
        if "looks" in record:
            self.looks.merge(of_json(record["looks"]))
        else:
            self.blind.append(f"{DATA}/{record['file']}")

    def stats(self) -> dict[str, Any]:
        """Sums over the rows of this run."""
        return add_stats(self._stats)

    def forget_failures(self, chunks: Iterable[Chunk]) -> None:
        """These chunks are tried once more."""
        for chunk in chunks:
            self.failed.pop(str(chunk), None)
        self.again.clear()

    @contextlib.contextmanager
    def recorded(self) -> Iterator[None]:
        """A run that ends early is recorded as interrupted or failed, unless its end is recorded already."""
        try:
            yield
        except BaseException as e:
            with contextlib.suppress(OutputError):  # what was raised may be that the output cannot be written
                if self.changes:  # again: a run beside this one may have measured before all of it was done
                    self.prepared.output.mark()
                if not self.written:
                    self.write("interrupted" if interrupted(e) else "failed")
            raise

    def finish(self, manifest: Manifest) -> RunResult:
        """Metrics, record, card and page; then how it ended. Raises JobError when chunks failed. manifest: of the table now."""
        self.count = len(manifest.files)
        cut_off = write_down(self.prepared.output, manifest, self.name)
        if self.failed:
            self.keep_looks(manifest)
            self.write("failed")
            chunk, reason = next(iter(self.failed.items()))
            raise JobError(
                f"{len(self.failed)} of {plural(self.plan.chunks, 'chunk')} failed; everything else is written, and the same "
                f"command tries them again. {chunk}: {reason}"
            )
        output, config = self.prepared.output, self.prepared.config
        metrics = output.read_json("metrics.json")
        if metrics and not self.changes and output.marked() is None:
            return RunResult(self._exit_code(metrics), self.write("nothing new"), metrics)
        state = "done with errors" if self.errors else "done" if self.plan.pending else "nothing new"
        record = self.write(state, drift=drift_of(output, self.name, self.stats(), config.drift, cut_off))
        from levit_batch.results.evaluate import evaluate  # matplotlib: not before the first chunk

        self.written = False  # what fails now is this run's failure
        looks = self.keep_looks(manifest)
        metrics = evaluate(output, self.prepared.source, sums=manifest.sums, looks=looks)
        self.written = True
        output.unmark(self.changes or self.marked)
        return RunResult(self._exit_code(metrics), record, metrics)

    def keep_looks(self, manifest: Manifest) -> Looks:
        """The rows worth a look of the table that `manifest` names, kept beside it."""
        from levit_batch.results.page.kept_samples import gather, write_samples

        output, source = self.prepared.output, self.prepared.source
        looks = gather(output, manifest, source, self.looks.picks(None), self.name, self.blind)
        write_samples(output, looks)
        return looks

    def _exit_code(self, metrics: dict[str, Any]) -> int:
        rows, errors = metrics["rows"], sum(metrics["errors"].values())
        return 3 if rows and errors / rows > self.prepared.config.output.max_error_rate else 0

    def write(self, state: str, **more: Any) -> dict[str, Any]:
        record = redact(self.as_json(state) | more)
        self.prepared.output.write_json(f"runs/{self.name}.json", record)
        self.written = True
        return record

    def as_json(self, state: str) -> dict[str, Any]:
        ended = datetime.now(UTC)
        wall = (ended - self.started).total_seconds()
        plan = self.plan
        own = peak_memory()
        return {
            "started": self.started.isoformat(timespec="milliseconds"),
            "ended": ended.isoformat(timespec="milliseconds"),
            "state": state,
            "rows": self.rows,
            "chunks": self.chunks,
            "errors": dict(self.errors.most_common()),
            "error_rate": sum(self.errors.values()) / self.rows if self.rows else 0.0,
            "unmatched_targets": self.unmatched,
            "begun_again": self.begun_again,
            "seconds": wall,
            "seconds_to_first_chunk": self.first_chunk,
            "images_per_second": self.rows / wall if wall else 0.0,
            "bytes_read": self.bytes,
            "stages": {
                stage: {"seconds": seconds, "images_per_second": self.rows / seconds if seconds and stage != "load" else None}
                for stage, seconds in self.seconds.items()
            },
            "waiting": {"read": self.seconds.get("read", 0.0), "replica": self.waited},
            KEY: self.pace.median,
            "replicas": len(self.peak),
            "gpus": list(self.gpus.values()),
            "peak_memory": own + sum(self.peak.values()),
            "skipped": {"chunks": len(plan.done), "rows": plan.done_rows},
            "shards": {
                "new": named(plan.new),
                "changed": named(plan.changed),
                "vanished": {"count": len(plan.vanished), "names": self.vanished[: len(plan.vanished)]},
            },
            "rows_gone": self.gone,
            "files": self.count,
            "failed": [{"chunk": chunk, "reason": reason} for chunk, reason in list(self.failed.items())[:NAMES]],
            "stats": self.stats(),
            "drift": None,
            "engine": None if self.size is None else "ray" if self.prepared.nursery is None else "local",
            "pool": None if self.size is None else dataclasses.asdict(self.size),
            "dataset_revision": self.prepared.revision,
            "host": os.uname().nodename,
            "versions": versions(),
        }


def named(names: list[str]) -> dict[str, Any]:
    return {"count": len(names), "names": names[:NAMES]}
