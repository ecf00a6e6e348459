import threading

import pyarrow as pa
import pytest

from pipelines.label.read_ahead import DEPTH, read_ahead

TABLES = [pa.table({"i": [i]}) for i in range(20)]


def test_order_is_kept_and_waiting_is_told():
    waited = []
    ended = threading.Event()
    with read_ahead(iter(TABLES), waited.append, ended.set) as tables:
        assert list(tables) == TABLES
    assert ended.wait(5)
    assert len(waited) == len(TABLES) + 1 and all(seconds >= 0 for seconds in waited)


def test_an_error_comes_where_its_table_would():
    def broken():
        yield TABLES[0]
        raise OSError("the hub is away")

    found, ended = [], threading.Event()
    with (
        pytest.raises(OSError, match="the hub is away"),
        read_ahead(broken(), lambda _: None, ended.set) as tables,
    ):
        for table in tables:
            found.append(table)
    assert found == TABLES[:1] and ended.wait(5)


def test_it_reads_no_further_than_its_depth_and_ends_when_left():
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield TABLES[0]

    ended = threading.Event()
    with read_ahead(endless(), lambda _: None, ended.set) as tables:
        next(tables)
        assert not ended.wait(0.2)
    assert ended.wait(5) and len(taken) <= DEPTH + 4


def test_reading_begins_before_the_first_table_is_wanted():
    begun = threading.Event()

    def tables():
        begun.set()
        yield TABLES[0]

    with read_ahead(tables(), lambda _: None):
        assert begun.wait(5)
