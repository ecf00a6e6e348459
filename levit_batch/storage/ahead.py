"""Work on what comes next while what is here is used: hides latency, and holds no more than it was allowed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def ahead(pool: Executor, make: Callable[[Item], Made], items: Iterable[Item], most: int) -> Iterator[tuple[Item, Made]]:
    """Each of `items` with what `make` makes of it in the threads of `pool`: in order, at most `most` before they are needed."""
    waiting: deque = deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(make, item)))
            if len(waiting) > most:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        for _, future in waiting:  # whoever asked wants no more, or something failed
            future.cancel()
