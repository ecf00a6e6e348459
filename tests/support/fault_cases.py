"""Cases of the fault matrix: one operation of one command on one store meets one fault; then the same command, to a good end."""

import contextlib
import gc
import os
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.fault_commands import COMMANDS, Command
from tests.support.fault_operations import AMID, OF_CHANGES, OF_READS, READS, Operations, watch, watched
from tests.support.nights_engine import Engine
from tests.support.s3_trouble import TROUBLES, Trouble, troubles


@dataclass(frozen=True)
class Case:
    """Its text runs it again (`python -m tests.benchmarks.faults`)."""

    command: str
    store: str
    at: int
    what: str

    def __str__(self) -> str:
        return f"--command {self.command} --store {self.store} --at {self.at} --what {self.what.replace(' ', '-')}"


class Stage:
    """A command with all that it needs, undisturbed once: `trace` of its operations, and what it leaves."""

    def __init__(self, command: Command, name: str, store: str, server: Any = None):
        self.command, self.name, self.store, self.server = command, name, store, server
        command.make()
        command.keep()
        command.restore()
        self.before = command.left()
        for _ in range(2):  # a client that asks something once a process has asked it then
            command.restore()
            with self.meeting("", 0) as met:
                self.end = command.ended()
        self.trace, self.after = met[0].trace, command.left()
        self.requests = met[1].trace
        assert self.end.startswith("exit "), self.end

    def cases(self) -> Iterator[Case]:
        for at, (kind, _) in enumerate(self.trace, 1):
            for what in OF_READS if kind in READS else OF_CHANGES:
                if (what == "cut" and kind in ("look", "list")) or (what == "kill amid" and kind not in AMID):
                    continue
                if self.requests and not what.startswith("kill"):  # its requests meet all else
                    continue
                yield Case(self.name, self.store, at, what)
        for at, (method, _) in enumerate(self.requests, 1):
            yield from (Case(self.name, self.store, at, what) for what in troubles(at, method))

    @contextlib.contextmanager
    def meeting(self, what: str, at: int) -> Iterator[tuple[Operations, Trouble]]:
        """Inside, an operation, or a request to the store, meets this."""
        request = what in TROUBLES
        trouble = Trouble(what, at) if request else Trouble()
        if self.store == "s3":
            self.server.trouble = trouble
        with watched(Operations(self.command.root) if request else Operations(self.command.root, what, at)) as operations:
            try:
                yield operations, trouble
            finally:
                if self.store == "s3":
                    self.server.trouble = None

    def play(self, case: Case) -> Counter[str]:
        """What happened. Raises AssertionError when the table is not what it would have been."""
        command = self.command
        command.restore()
        with self.meeting(case.what, case.at) as met:
            end = command.ended()
        if not any(one.happened for one in met):
            return Counter({"never came": 1})
        command.require_readable(self.before, self.after)
        command.bury()
        again = command.ended()
        assert again == self.end, f"{self.told(case)} -> {end}; the same command again -> {again}"
        self.require_same(command.left(), f"{self.told(case)} -> {end}")
        return Counter({"cases": 1, end.partition(":")[0].split()[0]: 1})

    def fill(self, free: int) -> str:
        """The disk has only so many bytes left, and has them back the next time. How the command ended on the full one."""
        command, filler = self.command, self.command.folder / "filler"
        command.restore()
        disk = os.statvfs(command.folder)
        filler.write_bytes(bytes(max(0, disk.f_bavail * disk.f_frsize - free)))
        end = command.ended()
        filler.unlink()
        command.require_readable(self.before, self.after)
        again = command.ended()
        assert again == self.end, f"with {free} bytes free -> {end}; with all of them -> {again}"
        self.require_same(command.left(), f"with {free} bytes free -> {end}")
        return end

    def told(self, case: Case) -> str:
        return f"{case.what} {' '.join((self.requests if case.what in TROUBLES else self.trace)[case.at - 1])}"

    def require_same(self, left: Any, told: str) -> None:
        for part in {*left, *self.after}:
            one, other = left.get(part), self.after.get(part)
            if one == other:
                continue
            if isinstance(one, list) and isinstance(other, list):
                one, other = [row for row in one if row not in other], [row for row in other if row not in one]
            raise AssertionError(f"{told}: {part}: {one!s:.600} and not {other!s:.600}")


@contextlib.contextmanager
def staged(engine: Engine, folder: Path, name: str, store: str, server: Any = None) -> Iterator[Stage]:
    """server: an `S3Server`, where the store is S3."""
    with pytest.MonkeyPatch.context() as patch:
        if server:
            server.use(patch)
        watch(patch)
        home = folder / f"{name}-{store}"
        home.mkdir()
        command = COMMANDS[name](engine, home, store, patch)
        try:
            yield Stage(command, name, store, server)
        finally:
            command.close()
            gc.collect()  # what a killed command left half open complains here, and not amid the next test


def wrong(stage: Stage, case: Case) -> tuple[Counter[str], str]:
    """What happened, and what is wrong with it ("": nothing)."""
    try:
        return stage.play(case), ""
    except AssertionError as e:
        return Counter({"cases": 1, "wrong": 1}), str(e)
    except Exception:
        return Counter({"cases": 1, "wrong": 1}), traceback.format_exc()
