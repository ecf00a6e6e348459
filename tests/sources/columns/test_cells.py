import numpy as np
import pyarrow as pa
import pytest

from levit_batch.sources.columns.cells import cell_buffers


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_views_of_the_same_memory(kind):
    column = pa.array([b"skipped", b"one", None, b"", b"four"], kind).slice(1)
    found = cell_buffers(pa.chunked_array([column]))
    assert [None if cell is None else bytes(cell) for cell in found] == [b"one", None, b"", b"four"]
    assert np.shares_memory(np.frombuffer(found[0], np.uint8), np.frombuffer(column.buffers()[2], np.uint8))


def test_nothing_and_nulls_only():
    assert cell_buffers(pa.array([], pa.binary())) == []
    assert cell_buffers(pa.array([None, None], pa.large_binary())) == [None, None]
