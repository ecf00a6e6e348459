"""Whole jobs on a node that pretends to have a GPU (tests/support/pretend_gpu.py): decoding apart, and two nights in a row."""

import json
import os

import pytest

from levit_batch.job.load import load_config
from levit_batch.storage.place import place
from levit_batch.table.write import read_record
from pipelines.label.execute import make_work
from pipelines.label.prepare import prepare
from pipelines.label.replica import Replica
from tests.support import ROOT
from tests.support.jobs import Job

CPUS = 3
ROWS = 899


@pytest.fixture
def env(tmp_path):
    """What Ray and torch are told: four CPUs and a GPU. The GPU breaks once."""
    breaks = tmp_path / "breaks"
    breaks.touch()
    path = os.pathsep.join((str(ROOT / "tests/support"), str(ROOT)))
    return {"PYTHONPATH": path, "PRETEND_GPU": str(breaks), "RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": CPUS, "GPU": 1})}


def on_a_cpu(folder, checkpoint):
    """The table of the same job without Ray and without a GPU."""
    job = Job(folder / "cpu", checkpoint, model={"backend": "torch"})
    prepared = prepare(load_config(str(job.file)), False)
    replica = Replica(make_work(prepared, "run", False), prepared.runnable)
    for chunk in prepared.chunks:
        replica.label(chunk)
    return job.table()


def test_two_nights_have_one_pool_and_a_gpu_that_breaks_costs_no_row(tmp_path, checkpoint, env):
    compute = {"gpus_per_replica": 1, "replicas": "auto", "chunk_rows": 32, "batch_size": 64}
    job = Job(tmp_path / "job", checkpoint, compute=compute, model={"dtype": "float32"})
    for arguments in (["--limit", "480"], []):
        ended = job.run("run", *arguments, env=env)
        assert ended.returncode in (0, 3), ended.stderr
    first, second = (json.loads(file.read_text()) for file in job.runs())
    assert not (tmp_path / "breaks").exists() and first["rows"] + second["rows"] == ROWS
    assert first["pool"] == second["pool"] and first["pool"]["replicas"] == [1, 1, 1]
    assert first["pool"]["decoders"] == [CPUS - 1] * 3  # and not what the slow first chunk would make of it
    assert first["replicas"] == 2, "the second in the place of the first, whose GPU broke"
    assert max(read_record(place(str(file)))["attempt"] for file in job.chunks()) == 2
    for run in (first, second):
        assert set(run["stages"]) == {"load", "read", "decode", "predict", "write"} and run["decode_per_predict"] > 0
        assert run["stages"]["load"]["seconds"] > run["stages"]["predict"]["seconds"] / run["chunks"]
        gpu = run["gpus"][-1]
        assert gpu == {"name": "Pretended GPU", "memory": 1 << 30, "dtype": "float32", "batch": 64}
    expected = on_a_cpu(tmp_path, checkpoint)
    assert all(job.table()[name].equals(expected[name]) for name in ("shard", "row", "error", "label"))
