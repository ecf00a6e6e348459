"""Where reading is cut into tables: by rows, and by bytes, so that the few tables that are read ahead fit in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.job.config import SourceConfig
from levit_batch.sources.columns.cells import cell_buffers
from levit_batch.sources.columns.images import image_cells
from levit_batch.sources.columns.lookup import Found, read_path, too_large
from levit_batch.sources.columns.standard import column_of, standard_table
from levit_batch.storage.url import scheme

READ_ROWS = 64  # rows in one table that `read` yields: enough to amortise calls, few enough to stay in cache
TABLE_BYTES = 32 << 20  # a table that has as much gets no further row
REMOTE_READS = 8  # at a time, in one replica

NameT, ItemT = TypeVar("NameT"), TypeVar("ItemT")


def tables(
    items: Iterable[ItemT], size: Callable[[ItemT], int], make: Callable[[list[ItemT]], pa.Table]
) -> Iterator[pa.Table]:
    """What `make` makes of the items, a few at a time. They are let go before the table is given away."""
    part, total = [], 0
    for item in items:
        part.append(item)
        total += size(item)
        del item
        if len(part) == READ_ROWS or total >= TABLE_BYTES:
            table, part, total = make(part), [], 0
            yield table
            del table
    if part:
        yield make(part)


def read_in_order(read: Callable[[NameT], Found], names: Iterable[NameT], at_a_time: int) -> Iterator[Found]:
    """What `read` finds for each name, in order; read side by side, but large images fewer at a time than small ones."""
    if at_a_time == 1:
        yield from map(read, names)
        return
    names, reading, largest = iter(names), deque(), 1
    with ThreadPoolExecutor(at_a_time) as pool:
        while True:
            most = max(1, min(at_a_time, TABLE_BYTES // largest))
            reading.extend(pool.submit(read, name) for name in islice(names, max(0, most - len(reading))))
            if not reading:
                return
            answer = reading.popleft().result()
            largest = max(found_bytes(answer), largest // 2, 1)
            yield answer
            del answer


def found_bytes(found: Found) -> int:
    return len(found[0]) if found[0] is not None else 0


def found_arrays(found: list[Found]) -> tuple[pa.Array, pa.Array]:
    """Images and errors as `standard_table` takes them."""
    images, errors = zip(*found, strict=True)
    return pa.array(images, pa.large_binary()), pa.array(errors, pa.string())


def standard_tables(
    rows: pa.Table | pa.RecordBatch,
    config: SourceConfig,
    like: pa.Schema,
    look_up: Callable[[str | None, SourceConfig], Found] = read_path,
) -> Iterator[pa.Table]:
    """`rows` as standard tables. Images that are not in the rows are looked up by their paths.

    like: the source's schema, whose types the target and the kept columns get.
    """
    data, paths = image_cells(column_of(rows, config.image_column), config)
    lengths = pc.fill_null(pc.binary_length(data), 0)
    largest, total = pc.max(lengths).as_py() or 0, pc.sum(lengths).as_py() or 0
    one_table = len(data) <= 1 or (len(data) <= READ_ROWS and total <= TABLE_BYTES)
    if one_table and not data.null_count and largest <= config.max_image_bytes:
        yield standard_table(rows, config, like, (data, pa.nulls(len(data), pa.string())))
        return
    start = 0

    def image(row: tuple[memoryview | None, str | None]) -> Found:
        cell, path = row
        if cell is None:
            return look_up(path, config)
        return (cell, None) if len(cell) <= config.max_image_bytes else (None, too_large("the image", len(cell), config))

    def make(part: list[Found]) -> pa.Table:
        nonlocal start
        start += len(part)
        return standard_table(rows.slice(start - len(part), len(part)), config, like, found_arrays(part))

    remote = data.null_count and (scheme(config.root or "") or any(path and "://" in path for path in paths))
    pairs = zip(cell_buffers(data), paths, strict=True)
    yield from tables(read_in_order(image, pairs, REMOTE_READS if remote else 1), found_bytes, make)
