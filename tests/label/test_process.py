import gc
import re
import resource
import sys
from pathlib import Path

import pytest

from levit_batch.job.load import load_config
from pipelines.label.process import peak_memory, quick_imports
from pipelines.label.run import run_job
from tests.support.jobs import Job


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()


def test_no_collection_inside_and_again_after():
    with quick_imports():
        assert not gc.isenabled()
    assert gc.isenabled() and gc.get_freeze_count() > 0


def test_also_after_an_error():
    with pytest.raises(ImportError), quick_imports():
        raise ImportError("no such module")
    assert gc.isenabled()


def test_who_had_turned_it_off_finds_it_off():
    gc.disable()
    try:
        with quick_imports():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_job_leaves_nothing_frozen(tmp_path, checkpoint):
    before = gc.get_freeze_count()
    job = Job(tmp_path, checkpoint, source={"limit": 4}, compute={"replicas": 1})
    assert run_job(load_config(str(job.file))).record["rows"] == 4
    assert gc.get_freeze_count() <= before


def test_peak_memory_is_in_bytes_on_linux_and_macos(monkeypatch):
    told = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "linux":
        now = int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
        assert now * 0.9 < peak_memory() < now + 10**10 and peak_memory() >= told * 1024
    monkeypatch.setattr(sys, "platform", "darwin")
    assert told <= peak_memory() < told * 2
