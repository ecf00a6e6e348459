"""One run, or training, at a time in one folder, on a local disk, a network disk or an object store, without trusting any clock.

    _lock/<id>.json     one claim: who, where, since when, and whether it `wants` or `holds` the output
    _lock/<id>.dead     another run took this one for dead; should it wake, it cannot claim the output again by a late write

Two runs at once do twice the work, and one could replace or delete what the other relies on: a run whose claim is gone stops
before it changes the table (`Claim.require`). No store offers the same atomic step, so nothing here needs one: a run writes
its claim, then lists. Of two runs the one that lists last sees the other's claim. Who sees nobody holds; who sees a holder
leaves; who sees another that only wants takes its claim back and tries again a little later. A claim is only ever deleted by
its name, so that no live one goes with a dead one.

A holder rewrites its claim every `BEAT` seconds. Its age is the difference of two times of the same store: the claim's and
that of the claim just written. A holder on this machine whose process is gone is dead at once.
"""

import contextlib
import json
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from pyarrow import fs

from levit_batch.errors import LockedError, OutputError, brief
from levit_batch.storage.place import Place
from levit_batch.storage.retry import retry
from levit_batch.table.process import machine, started

BEAT = 15.0  # seconds between two signs of life
DEAD_AFTER = 120.0  # seconds without one: eight were missed
LOOK_EVERY = 2.0  # seconds between two looks while waiting
TRIES = 20  # at being the only one that wants it
FORGET_AFTER = 86_400.0  # seconds until nobody expects one to wake that was taken for dead


@contextlib.contextmanager
def locked(
    place: Place,
    wait: float = 0.0,
    say: Callable[[str], None] = lambda text: None,
    beat: float = BEAT,
    dead_after: float = DEAD_AFTER,
    setting: str = "output.path",
) -> Iterator["Claim"]:
    """Hold the folder `place`, which `setting` names, while the context lasts.

    Raises LockedError, after `wait` seconds, while another run holds it, and OutputError where it cannot be written to.
    """
    claim = Claim(place.join("_lock"), dead_after, setting)
    try:
        claim.take(wait, say)
    except BaseException:  # for whoever looks from another machine it would hold the output for minutes
        claim.drop()
        raise
    stop = threading.Event()
    thread = threading.Thread(target=claim.beat, args=(stop, beat, say), name="lock", daemon=True)
    thread.start()
    try:
        yield claim
    finally:
        stop.set()
        thread.join(timeout=30)
        claim.drop()


class Claim:
    """This run's claim on an output."""

    def __init__(self, folder: Place, dead_after: float, setting: str = "output.path"):
        self.folder, self.dead_after, self.setting = folder, dead_after, setting
        name = uuid.uuid4().hex
        self.at, self.tomb = folder.join(f"{name}.json"), folder.join(f"{name}.dead")
        self.first = folder.local and not os.path.exists(os.path.dirname(folder.path))
        self.facts = {
            "machine": machine(),
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "process": started(os.getpid()),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "state": "wants",
        }

    def take(self, wait: float, say: Callable[[str], None]) -> None:
        """Returns when this run holds the output; raises LockedError when it does not get it in `wait` seconds."""
        deadline = time.monotonic() + wait
        told = False
        while holder := self._try():
            if time.monotonic() >= deadline:
                raise LockedError(f"{self.setting}: {self._names(holder)}; wait for it (--wait-for-lock), or stop it there")
            if not told:
                say(f"waiting for the lock: {self._names(holder)}")
                told = True
            time.sleep(min(LOOK_EVERY, max(0.0, deadline - time.monotonic())))

    def _try(self) -> dict[str, Any] | None:
        """None: this run holds the output now; else what the claim of its holder says."""
        other: dict[str, Any] = self.facts
        for _ in range(TRIES):
            self._write("wants")
            others = self._others()
            if not others:
                self._write("holds")
                if self._lives():  # else it took so long that another run took it for dead
                    return None
            self.drop()
            other = next((claim for claim in others if claim["state"] == "holds"), [*others, other][0])
            if other["state"] == "holds":
                return other
            time.sleep(random.uniform(0.05, 0.4))
        return other

    def _others(self) -> list[dict[str, Any]]:
        """The claims of other runs; those of the dead are deleted."""
        listed = {info.path.rsplit("/", 1)[-1]: info for info in self.folder.list(recursive=False)}
        own = listed.pop(self.at.path.rsplit("/", 1)[-1], None)
        others = []
        for name, info in listed.items():
            at, tomb = self.folder.join(name), name.removesuffix(".json") + ".dead"
            if name.endswith(".dead"):
                if _older(info, own, FORGET_AFTER):
                    at.delete()
            elif name.endswith(".json") and (claim := _read(at)) is not None:
                if tomb in listed or self._dead(claim, info, own):
                    bury(at, self.folder.join(tomb), claim)
                else:
                    others.append(claim)
        return others

    def _dead(self, claim: dict[str, Any], info: fs.FileInfo, own: fs.FileInfo | None) -> bool:
        if claim["machine"] == self.facts["machine"]:
            return started(claim["pid"]) != claim["process"]
        return _older(info, own, self.dead_after)

    def beat(self, stop: threading.Event, every: float, say: Callable[[str], None]) -> None:
        """Signs of life until `stop`; ends when another run took this one for dead."""
        while not stop.wait(every):
            # What the store does not take now, a later beat may get through.
            with contextlib.suppress(OSError, OutputError):
                if not self._lives():
                    return say("another run took this one for dead: this one stops before it changes what readers see")
                self._write("holds")

    def require(self) -> None:
        """Raises LockedError when another run took this one for dead: what readers see is no longer this run's to change."""
        if not retry(self._lives):
            raise LockedError(
                f"{self.setting}: {self._output}: another run took this one for dead, since it gave no "
                "sign of life for too long; that one goes on with what is written: wait for it, or run again"
            )

    def _lives(self) -> bool:
        """Whether no other run took this one for dead. One listing: a late write of the claim does not bring it back."""
        names = {info.base_name for info in self.folder.list(recursive=False)}
        return self.at.path.rsplit("/", 1)[-1] in names and self.tomb.path.rsplit("/", 1)[-1] not in names

    def drop(self) -> None:
        with contextlib.suppress(OSError):
            self.at.delete()
            self.tomb.delete()
        if self.at.local:
            with contextlib.suppress(OSError):
                os.rmdir(self.folder.path)
                if self.first:  # a run that wrote nothing leaves no empty output
                    os.rmdir(os.path.dirname(self.folder.path))

    def _write(self, state: str) -> None:
        data = json.dumps(self.facts | {"state": state}).encode()
        for last in (False, False, True):
            try:
                return self.at.write_bytes(data)
            except FileNotFoundError as e:  # another run's `drop` removed the empty folder just now
                if last:
                    raise self._unwritable(e) from None
            except OSError as e:
                raise self._unwritable(e) from None

    @property
    def _output(self) -> str:
        return self.folder.url.rpartition("/")[0]

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"{self.setting}: {self._output} cannot be written: {error.strerror or brief(error)}")

    def _names(self, holder: dict[str, Any]) -> str:
        return f"{self._output} is in use since {holder['since']} by process {holder['pid']} on {holder['host']}"


def held(place: Place) -> bool:
    """Whether a run seems to hold the folder now; only looks."""
    now = datetime.now(UTC)
    for info in place.join("_lock").list(recursive=False):
        claim = _read(place.join("_lock", info.base_name)) if info.base_name.endswith(".json") else None
        if claim and claim["machine"] == machine():
            return started(claim["pid"]) == claim["process"]
        if claim and info.mtime and (now - info.mtime).total_seconds() < DEAD_AFTER:
            return True
    return False


def bury(at: Place, tomb: Place, claim: dict[str, Any]) -> None:
    """Delete the claim of a run that is taken for dead; of one that may only be asleep, elsewhere, so that it stays dead."""
    if claim["machine"] != machine():
        tomb.write_bytes(b"")
    at.delete()


def _older(info: fs.FileInfo, than: fs.FileInfo | None, seconds: float) -> bool:
    """Whether one file was written so much before another one, by the clock of the store that holds both."""
    times = (info.mtime, than and than.mtime)
    return None not in times and (times[1] - times[0]).total_seconds() > seconds


def _read(at: Place) -> dict[str, Any] | None:
    """A claim; None when it was taken back, or is not a claim."""
    try:
        claim = json.loads(at.read_bytes())
        return claim if {"machine", "pid", "process", "since", "host", "state"} <= claim.keys() else None
    except (OSError, ValueError, AttributeError):
        return None
