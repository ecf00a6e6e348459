"""A finished table as the source of another: its shards, cut into chunks of rows, and the rows of each."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from levit_batch.errors import OutputError
from levit_batch.job.chunks import Chunk, Shard
from levit_batch.storage.place import Place
from levit_batch.table.manifest import Manifest
from levit_batch.table.merge import unmatched_in
from levit_batch.table.output import Output
from levit_batch.table.plan import Plan
from levit_batch.table.read import read_table
from levit_batch.table.target_stats import unmatched_of
from levit_batch.table.write import read_record

PIECE_ROWS = 16_384  # of one chunk at most, a quarter of a row group: what is computed of it stays small


@dataclass(frozen=True)
class Piece:
    """A file of the table: rows `first` to `stop` of its shard. run: which wrote it, where that is known."""

    path: str
    first: int
    stop: int
    run: str


class Pieces:
    """The files of the table that `manifest` names, by shard, in row order. Memory: some 300 bytes a file."""

    def __init__(self, output: Output, manifest: Manifest):
        self.output = output
        self.shards: dict[str, Shard] = {}
        self.files: dict[str, list[Piece]] = {}
        self.any_unmatched = bool(unmatched_of(manifest.sums)["names"])
        names = ("path", "shard", "first", "rows", "version", "run")
        columns = [manifest.files[name].to_pylist() for name in names]
        for path, shard, first, rows, version, run in sorted(zip(*columns, strict=True), key=lambda one: (one[1], one[2])):
            rows_before = self.shards[shard].rows if shard in self.shards else 0
            self.shards[shard] = Shard(shard, "", version, rows_before + rows)
            self.files.setdefault(shard, []).append(Piece(path, first, first + rows, run or ""))

    def chunks(self) -> Iterator[Chunk]:
        """Each file's rows, in pieces of at most `PIECE_ROWS`; a shard without rows is one chunk, as its file is."""
        for name, shard in self.shards.items():
            for file in self.files[name]:
                for first in range(file.first, file.stop, PIECE_ROWS):
                    yield Chunk(name, "", shard.version, first, min(first + PIECE_ROWS, file.stop))
            if not shard.rows:
                yield Chunk(name, "", shard.version, 0, None)

    def read(self, chunk: Chunk, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows of `chunk`, whichever files they are in; all columns or `columns`. Raises OutputError when they are gone."""
        tables = []
        for file in self._of(chunk):
            at = self.output.place.join(file.path)
            tables.append(_rows(at, max(chunk.first - file.first, 0), (chunk.stop or 0) - file.first, columns))
        table = pa.concat_tables([table.replace_schema_metadata() for table in tables])
        if chunk.rows is not None and table.num_rows != chunk.rows:
            raise OutputError(f"{self.output}: {chunk} has {table.num_rows} rows: the table changed meanwhile; run again")
        return table

    def unmatched(self, chunk: Chunk) -> list[dict[str, Any]]:
        """The targets in `chunk` that match nothing (`target_stats`), as the footers say: the rows have null for them."""
        if not self.any_unmatched:
            return []
        records = (read_record(self.output.place.join(file.path)) for file in self._of(chunk))
        return [one for record in records for one in unmatched_in(record, chunk.first, chunk.stop or 0)]

    def written(self, chunk: Chunk) -> str:
        """The last run that wrote rows of `chunk`."""
        return max((file.run for file in self._of(chunk)), default="")

    def _of(self, chunk: Chunk) -> list[Piece]:
        files = self.files[chunk.shard]
        if chunk.stop is None:
            return files[:1]
        start = max(bisect_right(files, chunk.first, key=lambda file: file.first) - 1, 0)
        return [file for file in files[start:] if file.first < chunk.stop and file.stop > chunk.first]


def _rows(at: Place, first: int, stop: int, columns: Sequence[str] | None) -> pa.Table:
    """Rows `first` to `stop` of a file; of Parquet only the row groups that they are in are read."""
    if not at.path.endswith(".parquet"):
        return read_table(at, columns).slice(first, max(stop - first, 0))
    try:
        with at.filesystem.open_input_file(at.path) as stream, pq.ParquetFile(stream) as parquet:
            groups, skipped, row = [], 0, 0
            for i in range(parquet.num_row_groups):
                rows = parquet.metadata.row_group(i).num_rows
                if row + rows <= first:
                    skipped += rows
                elif row < stop:
                    groups.append(i)
                row += rows
            rows = parquet.read_row_groups(groups, columns, use_threads=False)
            return rows.slice(first - skipped, max(stop - first, 0))
    except (pa.ArrowInvalid, OSError) as e:
        raise OutputError(f"{at.url}: cannot be read ({e}); run the job that wrote it again") from e


def reopen_rewritten(plan: Plan, output: Output, pieces: Pieces) -> None:
    """Finished chunks whose rows the table's own job has written again since (`run --retry-errors`) become pending again."""
    runs = _runs(plan)
    again = [chunk for chunk in plan.done if pieces.written(chunk) > runs.get(output.chunk_name(chunk), "~")]
    plan.done.discard(again)
    for chunk in again:
        record = read_record(output.chunk_place(chunk))
        plan.pending.append(chunk)
        plan.done_rows -= record["rows"]
        plan.before[f"data/{output.chunk_name(chunk)}"] = record["stats"]


def _runs(plan: Plan) -> dict[str, str]:
    """The run that wrote each visible file, by its path below data/."""
    if plan.live.manifest is None:
        return {}
    files = plan.live.manifest.files.filter(pc.is_valid(plan.live.manifest.files["run"]))
    paths = [path.partition("/")[2] for path in files["path"].to_pylist()]
    return dict(zip(paths, files["run"].to_pylist(), strict=True))
