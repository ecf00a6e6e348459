"""A random sequence of nights over one source into one output, each held against what the table must be."""

import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from levit_batch.job.config import JobConfig
from levit_batch.table.output import Output, folder_of
from pipelines.label.prepare import Prepared
from tests.support.nights_engine import Ended, Engine
from tests.support.nights_faults import Fault
from tests.support.nights_folders import Described, Folder
from tests.support.nights_shards import ArrowShards, HubShards, ParquetShards, Paths, TarShards
from tests.support.nights_source import Rows, World
from tests.support.nights_stores import STORES, Disk
from tests.support.nights_table import Table, WrongError, require_kept

SOURCES: dict[str, type[World]] = {
    "parquet": ParquetShards, "paths": Paths, "arrow": ArrowShards, "imagefolder": Folder, "metadata": Described,
    "webdataset": TarShards, "huggingface": HubShards,
}  # fmt: skip
PAUSE = 120  # seconds that one of two runs side by side waits for the other at most


def same(one: fs.FileInfo, other: fs.FileInfo) -> bool:
    return (one.size, one.mtime_ns) == (other.size, other.mtime_ns)


class Sequence:
    """said: every step so far, for whoever has to understand a wrong table. counts: what happened, for the figures."""

    def __init__(self, engine: Engine, folder: Path, seed: int, source: str, store: str):
        self.engine, self.chance = engine, random.Random(f"{seed} {source} {store}")
        self.world = SOURCES[source](folder, self.chance)
        self.world.heal()
        self.store: Disk = STORES[store](folder)
        self.chunk_rows = self.chance.randint(3, 7)
        self.format = self.chance.choice(["parquet", "parquet", "parquet", "arrow"])
        self.strict = self.chance.random() < 0.3  # a limit on how many rows may go in one night
        self.known: dict[tuple[str, str], Rows] = {}
        self.names: dict[str, str] = {}
        self.doubles = False  # two runs with different limits leave them until the next whole night
        self.crossed = False  # two runs wrote each their manifest: the next one that ends well mends it
        self.said: list[str] = []
        self.counts: Counter[str] = Counter()
        self.mended: set[int] = set()

    def play(self, nights: int) -> None:
        with pytest.MonkeyPatch.context() as patch:
            self.store.use(patch)
            patch.setattr(self.engine, "on_plan", self.learn)
            try:
                for _ in range(nights):
                    for _ in range(self.chance.choice([0, 1, 1, 1, 2, 3])):
                        self.said.append(f"  {self.world.step()}")
                    if self.chance.random() < 0.8:
                        self.world.heal()
                    if self.chance.random() < 0.25:
                        self.compact()
                    self.night()
                self.last()
            finally:
                self.store.clear()

    def last(self) -> None:
        """A plain night over a source that can be read gives the whole table; another one then changes nothing."""
        self.world.heal()
        if not self.plain().done:
            raise WrongError("a plain night fails")
        self.table().require_read_alike()
        before = self.store.files()
        if not self.plain().done:
            raise WrongError("a night with nothing new fails")
        after = self.store.files()
        for path in {*before, *after}:
            if path.startswith("data/") and not (path in before and path in after and same(before[path], after[path])):
                raise WrongError(f"a night with nothing new changed {path}")

    def plain(self) -> Ended:
        return self.run(None, {}, None, 1.0)

    def night(self) -> None:
        chance, self.mended = self.chance, self.world.mended()  # what can be read before it begins
        flags = {
            "retry_errors": chance.random() < 0.2,
            "overwrite": chance.random() < 0.04,
            "drop_vanished": chance.random() < 0.1,
        }
        limit = chance.randint(1, 30) if chance.random() < 0.25 else None
        most = 0.1 if self.strict and chance.random() < 0.7 else 1.0
        fault = self.fault() if chance.random() < 0.6 else None
        if fault is not None and fault.call == self.store.rob and fault.what == "call" and chance.random() < 0.7:
            self.side_by_side(limit, flags, fault)
        else:
            self.run(limit, flags, fault, most)

    def fault(self) -> Fault:
        chance = self.chance
        kind = chance.choice([None, None, None, *["settle"] * 5, *self.store.kinds])
        at = chance.choice([1, 1, 2, 3, 4, 5, 6, 8]) if kind else int(1.12 ** chance.randint(0, 40))
        what = chance.choice(["kill", "kill", "error", "call", "call"])
        times = chance.choice([1, 1, 1, 3, 20]) if what == "error" else 1
        call = self.change_meanwhile if self.world.tells_versions and chance.random() < 0.3 else self.store.rob
        return Fault(what, at, kind, chance.random() < 0.5, times, call)

    def change_meanwhile(self) -> None:
        """The source changes under the run."""
        self.said.append(f"  meanwhile {self.world.step()}")

    def config(self, limit: int | None, most: float = 1.0) -> JobConfig:
        return JobConfig.model_validate(
            {
                "source": self.world.config() | {"limit": limit},
                "model": {"checkpoint": self.engine.model.path, "backend": "torch"},
                "predict": {"top_k": 2},
                "output": {"path": self.store.url, "max_gone_rate": most, "format": self.format},
                "compute": {"chunk_rows": self.chunk_rows, "gpus_per_replica": 0},
            }
        )

    def run(self, limit: int | None, flags: dict[str, bool], fault: Fault | None, most: float) -> Ended:
        """One night, alone; what the table must then be."""
        before = self.table()
        ended = self.start(limit, flags, fault, most)
        self.say("night", limit, flags, fault, ended)
        after = self.table()
        self.require_right(before, after, [ended], flags, fault)
        if ended.done or not self.crossed:
            after.require_manifest(exact=ended.done)
        self.crossed = self.crossed and not ended.done
        if ended.done:
            self.require_done(before, after, ended, limit, flags, clean=fault is None or not fault.happened)
        elif fault is None or not fault.happened:
            self.require_refused(before, after, ended, limit, most)
        return ended

    def compact(self) -> None:
        """The small files are merged; every row stays where it was."""
        before, fault = self.table(), self.fault() if self.chance.random() < 0.6 else None
        if fault and fault.what == "call":
            fault.what = "kill"
        self.store.bury()
        rows = self.chance.choice([7, 12, 1000])
        ended = self.engine.compact(self.config(None), self.store.root.path, fault, rows)
        self.say(f"compact to {rows} rows", None, {}, fault, ended)
        after, seen = self.table(), self.store.exchanges or not (fault and fault.happened)
        if not self.doubles:
            after.require_once()
        if ended.done or not self.crossed:
            after.require_manifest(exact=ended.done)
        for folder in {*before.pieces, *after.pieces} - before.committed.keys() if seen else ():
            for version in {piece.version for piece in [*before.pieces.get(folder, []), *after.pieces.get(folder, [])]}:
                if before.of(folder, version) != after.of(folder, version):
                    raise WrongError(f"{self.names[folder]}: {before.pieces.get(folder)} became {after.pieces.get(folder)}")
        if ended.done:
            self.crossed = False

    def start(self, limit: int | None, flags: dict[str, bool], fault: Fault | None, most: float) -> Ended:
        self.store.bury()
        return self.engine.run(self.config(limit, most), self.store.root.path, fault, **flags)

    def side_by_side(self, limit: int | None, flags: dict[str, bool], fault: Fault) -> None:
        """At some change that one run makes another one takes it for dead; it stops somewhere, too, until the first ends."""
        before = self.table()
        other_limit = limit if self.chance.random() < 0.5 else self.chance.choice([None, 5, 20])
        pause = Fault(
            "call", self.chance.choice([1 << 40, self.chance.randint(1, 30)]), after=self.chance.random() < 0.5
        )
        there, go_on, ended = threading.Event(), threading.Event(), []

        def paused() -> None:
            there.set()
            if not go_on.wait(PAUSE):
                raise TimeoutError("the first run never ended")

        def second() -> None:
            ended.append(self.engine.run(self.config(other_limit), self.store.root.path, pause))
            there.set()

        def step_in() -> None:
            self.store.rob()
            thread.start()
            assert there.wait(PAUSE)
            if ended and ended[0].done and other_limit is None:  # while the first one still stands where it stood
                self.table().require_whole(ended[0].shards)

        pause.what = self.chance.choice(["call", "call", "call", "kill"])
        pause.call, fault.call = paused, step_in
        thread = threading.Thread(target=second)
        first = self.start(limit, flags, fault, 1.0)
        go_on.set()
        if not thread.ident:
            thread.start()
        thread.join()
        self.say("two nights", limit, flags, fault, first, f"and limit {other_limit} until {pause}: {ended[0]}")
        self.counts["side by side"] += 1
        self.crossed = True
        # Where folders cannot change places, one that is taken for dead may still put an old file beside the new ones.
        self.doubles = self.doubles or limit != other_limit or flags["overwrite"] or not self.store.exchanges
        after = self.table()
        self.require_right(before, after, [first, *ended], flags, fault, pause)

    def table(self) -> Table:
        return Table(self.store, self.world, self.engine.model, self.known, self.names)

    def say(self, *told: Any) -> None:
        kind, limit, flags, fault, ended, *more = told
        said = [kind, *(name for name, given in flags.items() if given)] + ([f"limit {limit}"] if limit else [])
        happened = f"({fault}: {fault.happened or 'did not happen'})" if fault else ""
        self.said.append(" ".join([*said, happened, "->", str(ended), *more]))
        self.counts["nights"] += 1
        self.counts[ended.how] += 1
        if fault and fault.happened:
            self.counts[f"{fault.what} {'after' if fault.after else 'before'} {fault.happened}"] += 1

    def learn(self, prepared: Prepared) -> None:
        """What the versions of the plan's shards hold."""
        truth, planned = self.world.truth(), [shard.name for shard in prepared.shards]
        if planned != list(truth)[: len(planned)] or (
            prepared.config.source.limit is None and len(planned) < len(truth)
        ):
            raise WrongError(f"planned {planned}, but there are {list(truth)}")
        for shard in prepared.shards:
            rows, folder = truth[shard.name], folder_of(shard.name)
            if self.known.setdefault((folder, shard.version), rows) != rows:
                raise WrongError(f"{shard.name}: version {shard.version} has two contents")
            self.names[folder] = shard.name

    def require_right(self, before, after, ended: list[Ended], flags, *faults: Fault | None) -> None:
        """What holds however a night ended."""
        if not self.doubles:
            after.require_once()
        if flags.get("overwrite"):
            return
        hit = [fault for fault in faults if fault and fault.happened]
        if self.world.moves_rows:  # one shard after the other
            there = {row.key for rows in self.world.truth().values() for row in rows}
            lost = (before.keys() & there) - after.keys()
            if lost and not any(fault.settling for fault in hit):
                raise WrongError(f"{sorted(lost)} are in the source, and gone from the table")
            return
        shards = {name: version for one in ended for name, version in one.shards.items()}
        plan = ended[0].planned
        drops = flags.get("drop_vanished") and plan and plan.config.source.limit is None
        may_go = before.pieces.keys() - {*map(folder_of, ended[0].shards)} if drops else set()
        require_kept(before, after, shards, may_go, self.store.exchanges or not hit)

    def require_done(self, before, after, ended: Ended, limit, flags, clean: bool) -> None:
        """What a night leaves that says it is done: the whole table (with a limit, what it reaches), counted."""
        metrics = Output(self.config(None).output).read_json("metrics.json")
        if metrics["rows"] != after.rows or sum(metrics["errors"].values()) != after.errors:
            raise WrongError(
                f"metrics.json: {metrics['rows']} rows, {metrics['errors']}; {after.rows}, {after.errors} there"
            )
        shards = ended.shards
        if limit is not None:
            shards = {} if self.world.moves_rows else dict(list(shards.items())[:-1])
        after.require_whole(shards)
        self.require_vanished(before, after, ended, limit, flags)
        if flags.get("retry_errors") and limit is None:
            there = {(name, row) for name, rows in self.world.truth().items() for row in rows}
            if bad := [row for _, row in after.bad & there if row.image in self.mended & self.world.mended()]:
                raise WrongError(f"{bad} can be read now, and are still errors")
        left = [
            path
            for path in self.store.files()
            if (path.startswith(("_attempts/", "_lock/", "_unmeasured", "_swap/")) or ".tmp" in path)
            and not path.endswith(".dead")  # of one that was killed after it was taken for dead
        ]
        left += [path for path in self.store.files() if path.startswith("_staging/") and limit is None]
        if clean and left:
            raise WrongError(f"left over: {left}")
        if limit is None:
            self.doubles = bool(after.doubled(after.pieces))  # of a shard that vanished with them

    def require_vanished(self, before, after, ended: Ended, limit, flags) -> None:
        """What the source no longer has is kept as it was, or gone."""
        folders = {folder_of(name) for name in ended.shards}
        if limit is None and (self.world.moves_rows or flags.get("drop_vanished") or flags.get("overwrite")):
            if kept := after.pieces.keys() - folders:
                raise WrongError(f"{[self.names[folder] for folder in kept]} are still there")
        elif not flags.get("overwrite") and not self.world.moves_rows:
            for folder in {*before.pieces, *after.pieces} - folders:
                if not before.same(after, folder):
                    raise WrongError(f"{self.names[folder]} has gone from the source, and its rows changed")

    def require_refused(self, before, after, ended: Ended, limit, most: float) -> None:
        """A night that stopped by itself had a reason, and changed nothing."""
        if ended.how != "exit 2":
            raise WrongError(f"ended with {ended}")
        if not all(before.same(after, folder) for folder in {*before.pieces, *after.pieces}):
            raise WrongError(f"ended with {ended}, and changed the table")
        if "max_gone_rate" in ended.said and self.world.moves_rows:
            there = {row.key for rows in self.world.truth().values() for row in rows}
            gone = len(after.keys() - there)  # what a killed night had begun is brought to its end first
            if gone <= most * after.rows and self.world.key_column == "file_name":
                raise WrongError(f"stopped for {gone} of {after.rows} rows")
        elif not self.world.refused():
            raise WrongError(f"ended with {ended}, but the source can be read")
