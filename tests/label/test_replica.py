"""A replica without Ray: what its two threads may do side by side, and what not."""

import dataclasses
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from levit_batch.errors import DeviceLostError
from levit_batch.job.load import load_config
from levit_batch.storage.place import Place
from levit_batch.table.attempts import GIVE_UP_AFTER, PREDICT
from pipelines.label import replica as module
from pipelines.label.execute import make_work
from pipelines.label.prepare import prepare
from pipelines.label.replica import DecodeTask, Replica
from pipelines.label.work import unpack
from tests.support import ROOT
from tests.support.jobs import Job

SECONDS = 20


@pytest.fixture
def made(tmp_path, checkpoint):
    """A replica and the first two chunks of its job."""
    job = Job(tmp_path, checkpoint, model={"backend": "torch"}, compute={"chunk_rows": 16})
    prepared = prepare(load_config(str(job.file)), False)
    return Replica(make_work(prepared, "run", False), prepared.runnable), list(prepared.chunks)[:2]


def test_the_next_chunk_computes_while_one_is_written(made, monkeypatch):
    replica, (first, second) = made
    write, reached = module.write_chunk, {str(chunk): threading.Event() for chunk in made[1]}

    def slow(output, chunk, *rest):
        reached[str(chunk)].set()
        assert reached[str(second)].wait(SECONDS)  # so long the first chunk's write takes
        return write(output, chunk, *rest)

    monkeypatch.setattr(module, "write_chunk", slow)
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(replica.label, first)
        assert reached[str(first)].wait(SECONDS)
        records = [threads.submit(replica.label, second).result(SECONDS), one.result(SECONDS)]
    assert [record["rows"] for record in records] == [16, 16]
    for chunk in made[1]:
        assert replica.work.output.chunk_place(chunk).exists()


def test_one_chunk_at_a_time_computes(made, monkeypatch):
    replica, chunks = made
    under_way, most = [], []
    predict = replica.predict

    def predicted(part, pixels, watch):
        under_way.append(part)
        most.append(len(under_way))
        try:
            return predict(part, pixels, watch)
        finally:
            under_way.remove(part)

    monkeypatch.setattr(replica, "predict", predicted)
    with ThreadPoolExecutor(2) as threads:
        records = list(threads.map(replica.label, chunks))
    assert most == [1, 1] and all(record["waited"] >= 0 for record in records)


class Held:
    """The first chunk's computing, held up until `go`; what of the second was begun and read meanwhile."""

    def __init__(self, replica, second, monkeypatch):
        self.go = threading.Event()
        self.computing, self.begun, self.read = threading.Event(), threading.Event(), threading.Event()
        predict, read, begin = replica.predict, replica.work.source.read, replica.decoder.attempts.begin

        def held(part, pixels, watch):
            if part.chunk != second:
                self.computing.set()
                assert self.go.wait(SECONDS)
            return predict(part, pixels, watch)

        def noted(chunk):
            for table in read(chunk):
                if chunk == second:
                    self.read.set()
                yield table

        def counted(attempts, chunk, stage):
            if chunk == second:
                self.begun.set()
            return begin(chunk, stage)

        monkeypatch.setattr(replica, "predict", held)
        monkeypatch.setattr(replica.work.source, "read", noted)
        monkeypatch.setattr(type(replica.decoder.attempts), "begin", counted)


def test_the_next_chunk_is_read_while_one_computes(made, monkeypatch):
    replica, (first, second) = made
    held = Held(replica, second, monkeypatch)
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(replica.label, first)
        assert held.computing.wait(SECONDS)
        other = threads.submit(replica.label, second)
        assert held.read.wait(SECONDS)
        held.go.set()
        assert [task.result(SECONDS)["rows"] for task in (one, other)] == [16, 16]


def test_one_chunk_at_a_time_is_read(made, monkeypatch):
    """They share the cursor that stands in a shard."""
    replica, (first, second) = made
    under_way, go, read = [], threading.Event(), replica.work.source.read

    def noted(chunk):
        under_way.append(chunk)
        assert chunk == second or go.wait(SECONDS)
        yield from read(chunk)

    monkeypatch.setattr(replica.work.source, "read", noted)
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(replica.label, first)
        while not under_way:
            time.sleep(0.01)
        other = threads.submit(replica.label, second)
        time.sleep(0.5)
        assert under_way == [first]
        go.set()
        assert [task.result(SECONDS)["rows"] for task in (one, other)] == [16, 16]


def test_a_chunk_that_a_process_died_with_begins_alone(made, monkeypatch):
    """Else the marker of a chunk that does no harm would count the death of the replica with the other."""
    replica, (first, second) = made
    replica.decoder.attempts.begin(second)
    held = Held(replica, second, monkeypatch)
    with ThreadPoolExecutor(2) as threads:
        one = threads.submit(replica.label, first)
        assert held.computing.wait(SECONDS)
        other = threads.submit(replica.label, second)
        assert not held.begun.wait(0.5)
        held.go.set()
        assert [task.result(SECONDS)["attempt"] for task in (one, other)] == [1, 2]


def test_a_failure_lets_the_other_thread_go_on(made, monkeypatch):
    replica, (first, second) = made
    gone = dataclasses.replace(first, url=first.url + ".gone")
    assert "failed" in replica.guard(lambda: replica.label(gone), gone)
    with monkeypatch.context() as patch:
        patch.setattr(type(replica.decoder.attempts), "begin", lambda *_: 1 / 0)
        assert "failed" in replica.guard(lambda: replica.label(first), first)
    with monkeypatch.context() as patch:
        patch.setattr(replica, "predict", lambda part, pixels: next(iter(pixels)) + 1 / 0)
        assert "failed" in replica.guard(lambda: replica.label(first), first)
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(replica.label, second).result(SECONDS)["rows"] == 16
        again = threads.submit(replica.label, first).result(SECONDS)
    assert again["attempt"] == 1, "nothing died"


@pytest.fixture
def apart(made):
    """The same with decoding apart: the replica, and what the decode task hands it of the first chunk."""
    replica, (first, _) = made
    part, pixels = unpack(DecodeTask(replica.work).decode(first))
    return replica, part, pixels


def markers(replica):
    return list(Path(replica.work.output.place.path).rglob("_attempts/**/*.*"))


def test_a_chunk_that_was_decoded_apart_is_an_attempt_of_the_replica(apart, monkeypatch):
    replica, part, pixels = apart
    attempts = replica.decoder.attempts
    assert part.attempt == (1, 1) and markers(replica) == [], "its decoding killed nobody"
    for _ in range(GIVE_UP_AFTER):  # and each process dies
        attempts.begin(part.chunk, PREDICT)
    assert attempts.begin(part.chunk).number == 1, "which is no reason to decode in a child process"
    attempts.take_back(part.chunk)
    said = replica.guard(lambda: replica.finish_decoded(part, pixels), part.chunk)
    assert "rows 0-15: its replica died 5 times after its images were decoded" in said["failed"] and not said["again"]
    assert markers(replica) == []
    record = replica.finish_decoded(part, pixels)
    assert record["rows"] == 16 and markers(replica) == []


class Died(BaseException):
    """What stands for the end of this process."""


def test_a_lost_gpu_ends_the_process_in_the_midst_of_its_attempt(apart, monkeypatch):
    replica, part, pixels = apart

    class Lost:
        batch = 8

        def __call__(self, pixels):
            raise DeviceLostError("the GPU failed")

    def died(reason):
        raise Died(reason)

    monkeypatch.setattr(module, "die", died)
    replica.load(part, pixels[:8])
    replica.predictor.backend = Lost()
    with pytest.raises(Died, match="the GPU failed"):
        replica.guard(lambda: replica.finish_decoded(part, pixels), part.chunk)
    assert len(markers(replica)) == 1 and replica.decoder.attempts.begin(part.chunk, PREDICT).number == 2


def test_loading_is_a_stage_of_its_own(made, monkeypatch):
    replica, (first, second) = made
    load = type(replica.model).load

    class Slow:
        """A model whose check takes a second, in its first call."""

        batch = 8

        def __init__(self, backend):
            self.backend, self.checked = backend, False

        def __call__(self, pixels):
            if not self.checked:
                time.sleep(1)
                self.checked = True
            return self.backend(pixels)

    monkeypatch.setattr(type(replica.model), "load", lambda model: time.sleep(1) or Slow(load(model)))
    one, other = replica.label(first), replica.label(second)
    assert one["seconds"]["load"] > 2 and one["seconds"]["load"] > one["seconds"]["predict"] and one["cold"]
    assert "load" not in other["seconds"] and not other["cold"] and one["gpu"] is None


def test_a_failure_before_an_attempt_counts_takes_no_death_back(made, monkeypatch):
    replica, (first, _) = made
    replica.decoder.attempts.begin(first)
    replica.decoder.attempts.begin(first)
    with monkeypatch.context() as patch:
        patch.setattr(type(replica.decoder.attempts), "begin", lambda *_: 1 / 0)
        assert "failed" in replica.guard(lambda: replica.label(first), first)
    assert replica.label(first)["attempt"] == 3


def test_a_marker_that_cannot_be_deleted_costs_no_chunk(made, monkeypatch):
    replica, (first, _) = made

    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Place, "delete", denied)
    assert replica.label(first)["rows"] == 16


@pytest.mark.parametrize("where", ["data", "_attempts"])
def test_an_output_that_takes_nothing_is_told_from_a_source_that_gives_nothing(made, where):
    replica, (first, _) = made
    in_the_way = Path(replica.work.output.place.path) / where
    in_the_way.parent.mkdir(exist_ok=True)
    in_the_way.write_text("a file")
    said = replica.guard(lambda: replica.label(first), first)
    assert said["refused"] and said["again"] and said["exit_code"] == 2
    assert said["failed"].startswith(f"output.path: {replica.work.output} cannot be written: ")
    gone = dataclasses.replace(first, url=first.url + ".gone")
    in_the_way.unlink()
    said = replica.guard(lambda: replica.label(gone), gone)
    assert not said["refused"] and "output.path" not in said["failed"]


def test_neither_torch_nor_ray_is_imported_before_there_is_work():
    code = "import sys, pipelines.label.execute, pipelines.label.run; sys.exit(bool({'torch', 'ray'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
