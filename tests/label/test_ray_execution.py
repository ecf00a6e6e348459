from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from levit_batch.job.chunks import Chunk, chunks_of_table
from levit_batch.job.config import ComputeConfig
from pipelines.cluster.sizing import Capacity, Nodes
from pipelines.label import ray_execution
from pipelines.label.ray_execution import LARGEST_GROUP, RayExecution, group
from pipelines.label.work import pack, record_block, unpack


def chunks(n):
    return [Chunk("s", "u", "0" * 8, i, i + 1) for i in range(n)]


def test_every_chunk_is_in_one_group_in_order():
    for n in (0, 1, 7, 100, 1_000, 100_000):
        for replicas in (1, 2, 64):
            groups = group(chunks(n), replicas)
            assert [c.first for table in groups for c in chunks_of_table(table)] == list(range(n))
            assert all(1 <= table.num_rows <= LARGEST_GROUP for table in groups)


def test_small_jobs_and_the_end_of_long_ones_go_chunk_by_chunk():
    assert all(table.num_rows == 1 for table in group(chunks(40), 2))
    for replicas in (1, 2, 64):
        long = [table.num_rows for table in group(chunks(100_000), replicas)]
        assert long[0] == LARGEST_GROUP and len(long) < 7_500
        assert long == sorted(long, reverse=True) and set(long[-4 * replicas :]) == {1}


def test_the_driver_hands_over_no_more_groups_of_a_very_long_job():
    for replicas in (2, 64):
        many = [table.num_rows for table in group(chunks(1) * 1_000_000, replicas)]
        assert sum(many) == 1_000_000 and len(many) < 8_500 and max(many) < 200 and set(many[-4 * replicas :]) == {1}


def test_pixels_travel_as_one_row_without_a_copy():
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    block = pack({"chunk": "s rows 0-1", "n": 3}, pixels)
    assert block.num_rows == 1
    part, same = unpack(block)
    assert part["n"] == 3 and np.array_equal(same, pixels) and np.shares_memory(same, pixels)
    part, none = unpack(pack({"chunk": "x"}, np.empty((0, 4, 4, 3), np.uint8)))
    assert none.shape == (0, 4, 4, 3)
    assert record_block({"rows": 1}) == pa.table({"record": ['{"rows": 1}']})


def execution(compute: ComputeConfig, has: dict[str, float], monkeypatch) -> RayExecution:
    """One that would run on a node that `has` this; Ray is not started."""
    made, here = RayExecution.__new__(RayExecution), Capacity((Nodes(has),))
    for place in ("pipelines.label.ray_execution", "pipelines.cluster.session"):
        monkeypatch.setattr(f"{place}.capacity", lambda: here)
    made.prepared = SimpleNamespace(config=SimpleNamespace(compute=compute), gpu=True, output=None)
    made.run, made.say = SimpleNamespace(size=None), print
    return made


@pytest.mark.parametrize(("store", "address", "told"), [(1 << 60, None, 1), (1, None, 0), (1 << 60, "auto", 0)])
def test_a_store_on_a_disk_is_told_once_where_pixels_pass_through_it(store, address, told, monkeypatch, capsys):
    """Of a cluster nobody here knows the disks."""
    monkeypatch.setattr(ray_execution, "measured_decode", lambda output, gpu: None)
    made = execution(ComputeConfig(address=address), {"CPU": 4, "GPU": 1, "object_store_memory": store}, monkeypatch)
    assert made._size(100).decoders == made._size(100).decoders == (3, 3, 3)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == told and all("/dev/shm" in line and "on a disk" in line for line in lines)


@pytest.mark.parametrize(("address", "decoders"), [(None, 15), ("auto", 3)])
def test_only_on_a_cluster_do_earlier_runs_decide_how_many_decode(address, decoders, monkeypatch):
    monkeypatch.setattr(ray_execution, "measured_decode", lambda output, gpu: 2.1)
    made = execution(ComputeConfig(address=address), {"CPU": 16, "GPU": 1}, monkeypatch)
    assert made._size(100).decoders[1] == decoders
