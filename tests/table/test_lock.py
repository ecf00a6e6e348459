"""Real processes that hold, wait, die and are killed; a real (local) object store."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from levit_batch.errors import LockedError, OutputError
from levit_batch.storage.place import Place, place
from levit_batch.table import lock
from levit_batch.table.lock import Claim, bury, locked
from levit_batch.table.process import machine, started
from tests.support.jobs import wait_for

HOLD = """
import sys, time
from levit_batch.storage.place import place
from levit_batch.table.lock import locked
with locked(place(sys.argv[1])):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
print("released", flush=True)
"""

RACE = """
import os, sys, time
from pathlib import Path
from levit_batch.storage.place import place
from levit_batch.table.lock import locked
with locked(place(sys.argv[1]), wait=60):
    inside = Path(sys.argv[2])
    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails when another one is inside
    time.sleep(0.1)
    inside.unlink()
"""


@pytest.fixture(params=["local", "s3"])
def path(request, tmp_path) -> str:
    """Where the output is: a folder, and a prefix of an object store."""
    if request.param == "local":
        return str(tmp_path / "out")
    return f"s3://{request.getfixturevalue('s3').bucket}/{tmp_path.name}"


def holder(path: str, seconds: float = 60) -> subprocess.Popen:
    """A process that holds the output; returns when it does."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, path, str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def claims(path: str) -> list[str]:
    return [info.path for info in place(path).join("_lock").list() if info.path.endswith(".json")]


def test_second_run_is_told_who_holds_it_since_when_and_leaves(path):
    process = holder(path)
    try:
        said = rf"in use since 20..-.*process {process.pid} on {os.uname().nodename}"
        with pytest.raises(LockedError, match=said), locked(place(path)):
            pass
        assert len(claims(path)) == 1  # the second run left nothing behind
    finally:
        process.kill()
        process.wait()


def test_released_at_the_end_and_after_an_error(path):
    with pytest.raises(ValueError), locked(place(path)):
        raise ValueError
    with locked(place(path)):
        assert len(claims(path)) == 1
    assert claims(path) == []
    assert not Path(path).exists()  # nothing was written, so not even an empty folder stays


def test_waits_until_the_first_run_ends(path):
    process = holder(path, 1.5)
    said = []
    with locked(place(path), wait=60, say=said.append):
        assert process.stdout.readline() == "released\n"
    process.wait()
    assert len(said) == 1 and str(process.pid) in said[0]


def test_waits_no_longer_than_it_was_told(path):
    process = holder(path)
    try:
        with pytest.raises(LockedError), locked(place(path), wait=0.5):
            pass
    finally:
        process.kill()
        process.wait()


def test_killed_run_on_this_machine_frees_the_output_at_once(path):
    process = holder(path)
    os.kill(process.pid, signal.SIGKILL)
    while started(process.pid) is not None:  # not waited for: a zombie is dead, too
        time.sleep(0.01)
    with locked(place(path)):
        assert len(claims(path)) == 1
    process.wait()


def test_stopped_run_still_holds_it(tmp_path):
    path = str(tmp_path)
    process = holder(path)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(LockedError), locked(place(path), dead_after=0):
            pass
    finally:
        process.kill()
        process.wait()


def test_process_id_that_is_used_again_holds_nothing(path):
    write_claim(path, pid=os.getpid(), process="1")  # this process, started at another time
    with locked(place(path)):
        assert len(claims(path)) == 1


def write_claim(path: str, **facts) -> None:
    """A claim as another run would have left it."""
    claim = Claim(place(path).join("_lock"), 0)
    claim.facts |= facts
    claim._write("holds")


def test_run_on_another_machine_holds_it_until_its_signs_of_life_end(path):
    write_claim(path, machine="elsewhere", host="elsewhere")
    with pytest.raises(LockedError, match="elsewhere"), locked(place(path), dead_after=60):
        pass
    with locked(place(path), wait=30, dead_after=2):
        assert len(claims(path)) == 1


@pytest.mark.parametrize("hours", [-1, 1])
def test_clocks_that_are_an_hour_apart_change_nothing(path, monkeypatch, hours):
    """Only the store's own times are held against each other."""
    with locked(place(path)):
        with monkeypatch.context() as other:
            real = time.time
            other.setattr(time, "time", lambda: real() + hours * 3600)
            other.setattr("levit_batch.table.lock.machine", lambda: "elsewhere")
            with pytest.raises(LockedError), locked(place(path), dead_after=60):
                pass
        assert len(claims(path)) == 1


def test_signs_of_life_keep_a_claim_of_another_machine_alive(tmp_path):
    path = str(tmp_path)
    claim = Claim(place(path).join("_lock"), 0)
    claim.facts |= {"machine": "elsewhere"}
    claim._write("holds")
    stop = threading.Event()
    thread = threading.Thread(target=claim.beat, args=(stop, 0.2, print))
    thread.start()
    try:
        with pytest.raises(LockedError), locked(place(path), wait=4, dead_after=3):
            pass
    finally:
        stop.set()
        thread.join()
    with locked(place(path), wait=30, dead_after=3):
        pass


def test_run_that_was_taken_for_dead_is_told_and_does_not_claim_again(tmp_path):
    said = []
    with locked(place(str(tmp_path)), say=said.append, beat=0.05):
        for name in claims(str(tmp_path)):
            os.unlink(name)
        while not said:
            time.sleep(0.01)
        assert claims(str(tmp_path)) == []
    assert "took this one for dead" in said[0]


def test_a_late_write_does_not_bring_back_a_claim_that_was_taken_for_dead(path):
    """As of a machine that slept between its last look and its next sign of life."""
    said = []
    with locked(place(path), say=said.append, beat=0.05) as claim:
        bury(claim.at, claim.tomb, {"machine": "elsewhere"})
        wait_for(lambda: said, 30)
        claim._write("holds")
        with pytest.raises(LockedError, match="took this one for dead"):
            claim.require()
        with locked(place(path)) as other:  # nobody else waits for it
            other.require()
    assert not place(path).join("_lock").list()


def test_who_sleeps_between_looking_and_claiming_looks_again(tmp_path, monkeypatch):
    write, slept = Claim._write, []

    def late(claim, state):
        if state == "holds" and not slept:
            bury(claim.at, claim.tomb, {"machine": "elsewhere"})
            slept.append(claim)
        write(claim, state)

    monkeypatch.setattr(Claim, "_write", late)
    with locked(place(str(tmp_path / "out"))) as claim:
        assert slept == [claim]
        claim.require()
        assert [info.base_name for info in claim.folder.list()] == [claim.at.path.rsplit("/", 1)[-1]]


def test_the_dead_are_forgotten_when_nobody_expects_them_any_more(path, monkeypatch):
    write_claim(path, machine="elsewhere", host="elsewhere")
    with locked(place(path), wait=30, dead_after=1):
        assert sum(info.path.endswith(".dead") for info in place(path).join("_lock").list()) == 1
    monkeypatch.setattr(lock, "FORGET_AFTER", 1)
    time.sleep(2.1)  # the store tells whole seconds
    with locked(place(path)) as claim:
        assert len(claim.folder.list()) == 1


def test_many_at_once_are_inside_one_at_a_time(path, tmp_path):
    command = [sys.executable, "-c", RACE, path, str(tmp_path / "inside")]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    ends = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, ends


def test_claim_says_where_to_look(tmp_path):
    with locked(place(str(tmp_path))):
        (name,) = claims(str(tmp_path))
        claim = json.loads(Path(name).read_text())
    assert claim["machine"] == machine() and claim["state"] == "holds" and claim["process"] == started(os.getpid())


def test_unwritable_output_is_one_line(tmp_path):
    (tmp_path / "out").write_text("a file")
    for words in ({}, {"setting": "--to"}):
        said = f"^{words.get('setting', 'output.path')}: {tmp_path}/out cannot be written: Not a directory$"
        with pytest.raises(OutputError, match=said), locked(place(str(tmp_path / "out")), **words):
            pass


def test_started_tells_processes_apart():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert started(process.pid) not in (None, started(os.getpid()))
    process.communicate(b"\n")
    assert started(process.pid) is None


def test_a_claim_that_could_not_be_made_whole_does_not_stay(path, monkeypatch):
    """As on a disk that fills between its two writes."""
    write, written = Place.write_bytes, []

    def full(at, data, *args, **options):
        if written:
            raise OSError(28, "No space left on device")
        written.append(at)
        return write(at, data, *args, **options)

    with monkeypatch.context() as disk, pytest.raises(OutputError, match="No space left"):
        disk.setattr(Place, "write_bytes", full)
        with locked(place(path)):
            pass
    assert written and claims(path) == []


def test_a_beat_that_fails_is_tried_again(tmp_path, monkeypatch):
    """As on a disk that is full for a while: the claim stays alive, and so does the thread that keeps it so."""
    said, write, refused = [], Place.write_bytes, threading.Event()

    def refusing(at, data, *args, **options):
        if threading.current_thread().name == "lock" and len(said) < 3:
            said.append(at)
            refused.set()
            raise OSError(28, "No space left on device")
        return write(at, data, *args, **options)

    monkeypatch.setattr(Place, "write_bytes", refusing)
    with locked(place(str(tmp_path / "out")), beat=0.05, dead_after=60) as claim:
        first = claim.at.info().mtime_ns
        assert refused.wait(30)
        wait_for(lambda: claim.at.info().mtime_ns != first, 30)
        assert len(said) == 3 and any(thread.name == "lock" for thread in threading.enumerate())


def test_a_run_whose_claim_is_gone_is_told_before_it_changes_anything(path):
    with locked(place(path)) as claim:
        claim.require()
        claim.at.delete()
        with pytest.raises(LockedError, match="another run took this one for dead"):
            claim.require()
