import numpy as np
import pyarrow as pa

from levit_batch.job.chunks import Chunk, chunks_of_table
from pipelines.label.execute import LARGEST_GROUP, group
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
