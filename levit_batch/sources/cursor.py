"""Chunks of one shard read one after the other without starting again, and again from where a read broke off."""

from collections.abc import Callable, Iterator

import pyarrow as pa

from levit_batch.job.chunks import Chunk
from levit_batch.storage.retry import Patience

RowsFrom = Callable[[Chunk, int], Iterator[pa.Table]]


class Cursor:
    """Where reading stands in one shard.

    Most formats cannot start in the middle of a row group (or a tar): a chunk there costs all that comes before it. A
    replica that gets the next chunk of the same shard therefore goes on where the last one ended.
    """

    def __init__(self, rows_from: RowsFrom):
        self._rows_from = rows_from
        self._shard: tuple[str, str] | None = None
        self._row = 0
        self._rest: pa.Table | None = None  # read already, not yet asked for
        self._tables: Iterator[pa.Table] | None = None

    def read(self, chunk: Chunk) -> Iterator[pa.Table]:
        """The rows of `chunk`. Raises OSError when the shard stays unreadable."""
        row, patience = chunk.first, Patience()
        while chunk.stop is None or row < chunk.stop:
            try:
                table = self._next(chunk, row)
            except Exception as e:
                self.close()
                patience.after(e, f"{chunk.shard}: row {row}")
                continue
            if table is None:
                return
            row, patience = row + table.num_rows, Patience()
            yield table

    def _next(self, chunk: Chunk, row: int) -> pa.Table | None:
        """The next rows, at most to the chunk's end; None at the shard's end."""
        if self._shard != (chunk.url, chunk.version) or self._row != row or self._tables is None:
            self.close()
            self._shard, self._row, self._tables = (chunk.url, chunk.version), row, self._rows_from(chunk, row)
        table, self._rest = self._rest, None
        while table is None or not table.num_rows:
            table = next(self._tables, None)
            if table is None:
                self.close()
                return None
        if chunk.stop is not None and row + table.num_rows > chunk.stop:
            table, self._rest = table.slice(0, chunk.stop - row), table.slice(chunk.stop - row)
        self._row = row + table.num_rows
        return table

    def close(self) -> None:
        tables, self._tables, self._rest, self._shard = self._tables, None, None, None
        if tables is not None and hasattr(tables, "close"):
            tables.close()
