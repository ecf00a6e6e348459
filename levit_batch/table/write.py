"""A chunk's rows become one file: serialised in memory, then put in place in one step."""

import io
from collections.abc import Callable
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from levit_batch.errors import OutputError
from levit_batch.job.chunks import Chunk
from levit_batch.job.row import FINGERPRINT
from levit_batch.storage.place import Place
from levit_batch.table.footer import footer, record_in
from levit_batch.table.output import Output

ROW_GROUP_ROWS = 65_536
LISTS = ("top_labels", "top_scores", "embedding", "logits")
REPEATING = ("shard", "label", "label_name", "target", "error", "head_label", "distill_label")


def write_chunk(output: Output, chunk: Chunk, table: pa.Table, fingerprint: str, record: dict[str, Any]) -> int:
    """Write `table` as the file of `chunk`; returns its size in bytes. Writing it again replaces it with the same rows."""
    data = serialise(table, output.format, footer(fingerprint, record))
    output.chunk_place(chunk).write_bytes(data)
    return len(data)


def serialise(table: pa.Table, format: str, metadata: dict[bytes, bytes] | None = None) -> memoryview:
    """The bytes of a Parquet file or of an Arrow IPC stream, with `metadata` (see `footer`) in it.

    A stream keeps the table's own metadata, too: nothing beside it tells a reader the class names.
    """
    table, sink = whole_lists(table), io.BytesIO()
    if format == "parquet":
        with open_parquet(sink, table.schema) as writer:
            writer.write_table(table.replace_schema_metadata(), ROW_GROUP_ROWS)
            writer.add_key_value_metadata(metadata or {})
    else:
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **(metadata or {})})
        # A stream, as `datasets` itself writes: Dataset.from_file memory-maps streams and cannot open IPC files.
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getbuffer()


def open_parquet(sink: BinaryIO | pa.NativeFile, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer of `schema` without its metadata, which Parquet would hold twice: as it is, and inside of the Arrow schema.

    Not with BYTE_STREAM_SPLIT, which saves 8% of float32: Spark (4.0) refuses it, and for float16 DuckDB (2.0) and polars do.
    """
    sought = [name for name in schema.names if name not in LISTS]  # least and most of an embedding's numbers help nobody
    return pq.ParquetWriter(
        sink, schema.remove_metadata(), compression="zstd", use_dictionary=_repeating(schema), write_statistics=sought
    )


def whole_lists(table: pa.Table) -> pa.Table:
    """`table` with each null fixed-size list among the predictions made a list of nulls.

    pyarrow before 26, and so pandas and `datasets`, cannot read a null fixed-size list from Parquet: one would make the
    whole file unreadable. A list of nulls opens everywhere, and [N, D] matrices keep their N rows. A kept column's null
    stays null: in Parquet its lists have no fixed size (`columns.kept_as_written`).
    """
    for i, field in enumerate(table.schema):
        if field.name in LISTS and table.column(i).null_count:
            chunks = [_whole_lists(chunk) for chunk in table.column(i).chunks]
            table = table.set_column(i, field, pa.chunked_array(chunks, field.type))
    return table


def _whole_lists(column: pa.FixedSizeListArray) -> pa.FixedSizeListArray:
    width = column.type.list_size
    values = column.values.slice(column.offset * width, len(column) * width)
    absent = pc.is_null(column).to_numpy(zero_copy_only=False).repeat(width)
    values = pc.if_else(pa.array(absent), pa.scalar(None, values.type), values)
    return pa.FixedSizeListArray.from_arrays(values, type=column.type)


def _repeating(schema: pa.Schema) -> list[str]:
    """Columns whose values repeat; a dictionary for the others costs time and saves nothing."""
    return [name for name in schema.names if name in REPEATING]


def read_record(at: Place) -> dict[str, Any]:
    """The record that was written with a chunk, from the file's footer. Raises OutputError for a file that is not ours."""
    return _in_metadata(at, record_in)


def fingerprint_of(at: Place) -> str:
    """The job that a chunk's file belongs to. Raises OutputError for a file that is not ours."""
    return _in_metadata(at, lambda metadata: metadata[FINGERPRINT].decode())


def _in_metadata(at: Place, find: Callable[[dict[bytes, bytes]], Any]) -> Any:
    try:
        with at.filesystem.open_input_file(at.path) as file:
            parquet = at.path.endswith(".parquet")
            return find((pq.read_metadata(file) if parquet else pa.ipc.open_stream(file).schema).metadata)
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError, OSError) as e:
        if isinstance(e, OSError) and "thrift" not in str(e):  # that is what pyarrow says of a damaged footer
            raise
        raise OutputError(f"{at.url}: not a file that levit-batch wrote ({e}); move it out of the output folder") from e
