"""A replica without Ray: what its two threads may do side by side, and what not."""

import dataclasses
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from levit_batch.load_config import load_config
from pipelines import replica as module
from pipelines.execute import make_work
from pipelines.prepare import prepare
from pipelines.replica import Replica
from tests.jobs import ROOT, Job

SECONDS = 20


@pytest.fixture
def made(tmp_path, checkpoint):
    """A replica and the first two chunks of its job."""
    job = Job(tmp_path, checkpoint, model={"backend": "torch"}, compute={"chunk_rows": 16})
    prepared = prepare(load_config(str(job.file)), False)
    return Replica(make_work(prepared, "run", False), prepared.runnable), prepared.chunks[:2]


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


def test_one_chunk_at_a_time_is_begun_and_computed(made, monkeypatch):
    """Else the marker of a chunk that did nothing would count the death of the other's replica."""
    replica, chunks = made
    under_way, most = [], []
    begin, predict = replica.decoder.begin, replica.predict

    def begun(chunk, *rest):
        under_way.append(chunk)
        most.append(len(under_way))
        return begin(chunk, *rest)

    def predicted(part, pixels):
        try:
            return predict(part, pixels)
        finally:
            under_way.remove(part.chunk)

    monkeypatch.setattr(replica.decoder, "begin", begun)
    monkeypatch.setattr(replica, "predict", predicted)
    with ThreadPoolExecutor(2) as threads:
        records = list(threads.map(replica.label, chunks))
    assert most == [1, 1] and all(record["waited"] >= 0 for record in records)


def test_a_failure_lets_the_other_thread_go_on(made):
    replica, (first, second) = made
    gone = dataclasses.replace(first, url=first.url + ".gone")
    assert "failed" in replica.guard(lambda: replica.label(gone), str(gone))
    assert replica.label(second)["rows"] == 16


def test_torch_is_not_imported_before_the_replica_is_made():
    code = "import sys, pipelines.execute, pipelines.label; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
