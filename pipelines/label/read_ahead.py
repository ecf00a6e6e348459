"""Read the next rows while the caller computes with these."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from queue import Queue

import pyarrow as pa

DEPTH = 2  # tables read ahead


@contextlib.contextmanager
def read_ahead(
    tables: Iterator[pa.Table], waited: Callable[[float], None], ended: Callable[[], None] = lambda: None
) -> Iterator[Iterator[pa.Table]]:
    """The same tables, read by a thread that starts at once; `waited` is told, for each, the seconds that the caller waited.

    An exception of the reading is raised where its table is wanted. `ended` is called, by that thread, when it reads no more.
    """
    queue: Queue[tuple[pa.Table | None, BaseException | None]] = Queue(DEPTH)
    stopped = threading.Event()

    def fill() -> None:
        try:
            for table in tables:
                queue.put((table, None))
                if stopped.is_set():
                    return
            queue.put((None, None))
        except BaseException as e:
            queue.put((None, e))
        finally:
            ended()

    threading.Thread(target=fill, daemon=True).start()
    try:
        yield _taken(queue, waited)
    finally:
        stopped.set()
        while not queue.empty():
            queue.get_nowait()


def _taken(queue: Queue, waited: Callable[[float], None]) -> Iterator[pa.Table]:
    while True:
        since = time.perf_counter()
        table, error = queue.get()
        waited(time.perf_counter() - since)
        if error is not None:
            raise error
        if table is None:
            return
        yield table
