"""When a job goes without Ray, and what becomes of the processes that it goes through then. Whole jobs: test_run.py."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from levit_batch.errors import ConfigError, JobError
from levit_batch.job.chunks import Chunk
from levit_batch.job.config import ComputeConfig
from pipelines.label import local_execution
from pipelines.label.local_execution import FEW, ONE_THREAD, LocalExecution, Nursery, cpus, runs_here
from tests.support import ROOT

CHUNK = Chunk("s", "u", "0" * 8, 0, 1)


@pytest.mark.parametrize(
    ("compute", "gpu", "chunks", "here"),
    [
        ({}, False, FEW, True),
        ({}, False, FEW + 1, False),
        ({}, True, 1, False),
        ({"address": "auto"}, False, 1, False),
        ({"decode_cpus": 1}, False, 1, False),
        ({"engine": "ray"}, False, 1, False),
        ({"engine": "local"}, False, 10_000, True),
    ],
)
def test_few_chunks_on_cpus_of_this_machine_go_without_ray(compute, gpu, chunks, here):
    assert runs_here(ComputeConfig(**compute), gpu, chunks) is here


def test_elsewhere_than_on_linux_it_is_ray(monkeypatch):
    monkeypatch.setattr(local_execution.sys, "platform", "darwin")
    assert not runs_here(ComputeConfig(), False, 1)
    with pytest.raises(ConfigError, match="^compute.engine: local is for"):
        runs_here(ComputeConfig(engine="local"), False, 1)


@pytest.mark.parametrize(("compute", "gpu"), [({"address": "auto"}, False), ({"decode_cpus": 1}, False), ({}, True)])
def test_local_is_refused_where_it_cannot_be(compute, gpu):
    with pytest.raises(ConfigError, match="^compute.engine: local is for CPUs of this one Linux machine.*; use auto$"):
        runs_here(ComputeConfig(engine="local", **compute), gpu, 1)


@pytest.mark.parametrize(("quota", "counted"), [("max 100000", 8), ("250000 100000", 2), ("50000 100000", 1), (None, 8)])
def test_a_container_has_the_cpus_of_its_quota(tmp_path, monkeypatch, quota, counted):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(local_execution, "QUOTA", tmp_path / "cpu.max")
    if quota:
        (tmp_path / "cpu.max").write_text(quota)
    assert cpus() == counted


def test_nothing_that_a_fork_would_leave_behind_is_imported_before_it():
    """Backends start threads when they are imported; pyarrow's allocator has one that minds forks."""
    code = """
import importlib, os, sys
from pathlib import Path
from pipelines.label.nursery import USED
for name in USED:
    importlib.import_module(name)
threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
assert len([name for name in threads if name != "jemalloc_bg_thd"]) == 1, threads
assert "torch" in sys.modules and not {"openvino", "onnxruntime", "ray"} & set(sys.modules)
"""
    env = os.environ | ONE_THREAD
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 0, ended.stderr


class Deadly:
    """Ends whoever unpickles it."""

    def __reduce__(self):
        return os._exit, (3,)


def execution(nursery, work):
    prepared = SimpleNamespace(
        config=SimpleNamespace(compute=ComputeConfig()), nursery=nursery, runnable=None, forget_model=lambda: None
    )
    return LocalExecution(prepared, SimpleNamespace(size=None), work, lambda text: None)


@pytest.mark.parametrize(
    ("work", "error", "said"),
    [
        (Deadly(), JobError, "^a replica died before it began; look for memory"),
        ("no work", RuntimeError, "AttributeError: 'str' object has no attribute"),
    ],
)
def test_a_replica_that_cannot_be_made_ends_the_job(work, error, said):
    with Nursery(verbose=False) as nursery, pytest.raises(error, match=said):
        list(execution(nursery, work).records([CHUNK]))
    assert nursery.process.returncode is not None


def test_without_its_nursery_a_job_ends_in_one_line():
    with Nursery(verbose=False) as nursery:
        nursery.process.kill()
        nursery.process.wait()
        with pytest.raises(JobError, match="^the process that replicas come from has ended: run again"):
            execution(nursery, "work")
