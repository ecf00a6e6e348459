import threading

import pyarrow as pa
import pytest

from levit_batch.read_ahead import DEPTH, read_ahead

TABLES = [pa.table({"i": [i]}) for i in range(20)]


def test_order_is_kept_and_waiting_is_told():
    waited = []
    assert list(read_ahead(iter(TABLES), waited.append)) == TABLES
    assert len(waited) == len(TABLES) + 1 and all(seconds >= 0 for seconds in waited)


def test_an_error_comes_where_its_table_would():
    def broken():
        yield TABLES[0]
        raise OSError("the hub is away")

    found = []
    with pytest.raises(OSError, match="the hub is away"):
        for table in read_ahead(broken(), lambda _: None):
            found.append(table)
    assert found == TABLES[:1]


def test_it_reads_no_further_than_its_depth_and_ends_when_left():
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield TABLES[0]

    tables = read_ahead(endless(), lambda _: None)
    next(tables)
    before = threading.active_count()
    tables.close()
    for thread in threading.enumerate():
        if thread.daemon and thread is not threading.current_thread() and "fill" in thread.name:
            thread.join(5)
    assert len(taken) <= DEPTH + 4 and threading.active_count() < before
