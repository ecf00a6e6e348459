"""A chunk's rows become one file: serialised in memory, then put in place in one step."""

import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from levit_batch.errors import OutputError
from levit_batch.output import Output
from levit_batch.plan import Chunk
from levit_batch.storage import Place

FINGERPRINT, RECORD = b"levit_batch.fingerprint", b"levit_batch.record"
ROW_GROUP_ROWS = 65_536


def write_chunk(output: Output, chunk: Chunk, table: pa.Table, fingerprint: str, record: dict[str, Any]) -> int:
    """Write `table` as the file of `chunk`; returns its size in bytes. Writing it again replaces it with the same rows."""
    metadata = {**(table.schema.metadata or {}), FINGERPRINT: fingerprint, RECORD: json.dumps(record)}
    data = serialise(table.replace_schema_metadata(metadata), output.format)
    output.chunk_place(chunk).write_bytes(data)
    return len(data)


def serialise(table: pa.Table, format: str) -> memoryview:
    """The bytes of a Parquet or Arrow IPC file."""
    sink = io.BytesIO()
    if format == "parquet":
        pq.write_table(
            table, sink, compression="zstd", row_group_size=ROW_GROUP_ROWS, use_dictionary=_repeating(table.schema)
        )
    else:
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    return sink.getbuffer()


def _repeating(schema: pa.Schema) -> list[str]:
    """Columns whose values repeat; a dictionary for the others costs time and saves nothing."""
    return [name for name in schema.names if name in ("shard", "label", "label_name", "target", "error")]


def read_record(at: Place) -> dict[str, Any]:
    """The record that was written with a chunk, from the file's footer. Raises OutputError for a file that is not ours."""
    try:
        with at.filesystem.open_input_file(at.path) as file:
            schema = pq.read_schema(file) if at.path.endswith(".parquet") else pa.ipc.open_file(file).schema
        return json.loads(schema.metadata[RECORD])
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as e:
        raise OutputError(f"{at.url}: not a file that levit-batch wrote ({e}); move it out of the output folder") from e
