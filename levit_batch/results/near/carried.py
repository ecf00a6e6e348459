"""The kept columns of a table's good rows, for a table beside it: read once more, a file at a time, as they are asked for."""

from collections.abc import Collection, Sequence

import pyarrow as pa

from levit_batch.errors import OutputError
from levit_batch.results.naming import untaken
from levit_batch.table.read import ChunkFile
from levit_batch.table.scan import scan_files


class Carried:
    """columns: of `files`; one that is called as one of `taken` becomes `source_<name>`."""

    def __init__(self, files: Sequence[ChunkFile], columns: Sequence[str], taken: Collection[str]):
        self.read = ["shard", "row", *columns]
        self.names = [untaken(name, taken) for name in columns]
        self.tables = scan_files(files, [*self.read, "error"]) if columns else iter(())
        self.left: list[pa.Table] = []  # rows that are read, and not yet asked for

    def beside(self, rows: pa.Table) -> pa.Table:
        """`rows`, the next of the table's good ones, with the columns after shard and row.

        Raises OutputError when the table does not hold these rows any more.
        """
        if not self.names:
            return rows
        theirs = self._next(rows.num_rows)
        if not theirs.select([0, 1]).equals(rows.select([0, 1])):
            raise OutputError("review: the table changed meanwhile; run `levit-batch review` again")
        columns = [*rows.columns[:2], *theirs.columns[2:], *rows.columns[2:]]
        return pa.table(columns, [*rows.schema.names[:2], *self.names, *rows.schema.names[2:]])

    def _next(self, n: int) -> pa.Table:
        """The next `n` good rows, or as many as there are."""
        while sum(part.num_rows for part in self.left) < n:
            _, table = next(self.tables, (None, None))
            if table is None:
                break
            self.left.append(table.filter(table["error"].is_null()).select(self.read))
        whole = pa.concat_tables(self.left)
        self.left = [whole.slice(n)]
        return whole.slice(0, n).combine_chunks()
