"""An output as numpy arrays aligned by row, with an index.csv that says which row each is."""

import os
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from levit_batch.errors import ConfigError
from levit_batch.results.export.text import for_spreadsheets, new_folder
from levit_batch.table.output import Output
from levit_batch.table.read import first_file, schema_of
from levit_batch.table.rows import list_matrix
from levit_batch.table.scan import scan

Arrays = dict[str, np.ndarray]  # by file name, each [N, ...]
INDEX = ("shard", "row", "label", "label_name", "score", "target")


def export_numpy(output: Output, out: str) -> int:
    """Write embeddings.npy [N, D] and index.csv of the N rows without an error; returns N."""
    schema = schema_of(first_file(output))
    _need(schema, "embedding", "numpy", "predict.embeddings=float16 or float32")
    return _write(output, out, ["embedding"], _good, lambda t: {"embeddings": list_matrix(t["embedding"])})


def export_cleanlab(output: Output, out: str) -> int:
    """Write labels.npy [N] (the targets), pred_probs.npy [N, K], features.npy [N, D] and index.csv; returns N.

    They are what `cleanlab.filter.find_label_issues(labels, pred_probs)` and `Datalab.find_issues` take. Left out are
    error rows and rows without a target; features.npy is there when the output has embeddings.
    """
    schema = schema_of(first_file(output))
    _need(schema, "logits", "cleanlab", "predict.logits=true")
    _need(schema, "target", "cleanlab", "source.target_column")
    if not pa.types.is_integer(schema.field("target").type):
        raise ConfigError("--to cleanlab: the targets are lists; cleanlab takes one label a row")
    columns = [name for name in ("target", "logits", "embedding") if name in schema.names]
    classes = schema.field("logits").type.list_size

    def rows(table: pa.Table) -> pa.Table:
        known = pc.and_(pc.greater_equal(table["target"], 0), pc.less(table["target"], classes))
        return table.filter(pc.and_kleene(pc.is_null(table["error"]), pc.fill_null(known, False)))

    return _write(output, out, columns, rows, _cleanlab_arrays)


def _cleanlab_arrays(table: pa.Table) -> Arrays:
    arrays = {"labels": table["target"].to_numpy(), "pred_probs": softmax(list_matrix(table["logits"]))}
    if "embedding" in table.schema.names:
        arrays["features"] = list_matrix(table["embedding"]).astype(np.float32)
    return arrays


def softmax(logits: np.ndarray) -> np.ndarray:
    """[N, K] -> probabilities float32 [N, K] that sum to 1."""
    raised = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return (raised / raised.sum(1, keepdims=True)).astype(np.float32)


def _need(schema: pa.Schema, column: str, kind: str, key: str) -> None:
    if column not in schema.names:
        raise ConfigError(
            f"--to {kind}: the output has no column {column}; label again with {key} (into a new output.path)"
        )


def _good(table: pa.Table) -> pa.Table:
    return table.filter(pc.is_null(table["error"]))


def _write(
    output: Output,
    out: str,
    columns: list[str],
    rows: Callable[[pa.Table], pa.Table],
    arrays: Callable[[pa.Table], Arrays],
) -> int:
    """Stream `arrays` of the chosen `rows` to `out`/<name>.npy, and their index to index.csv.

    An .npy file says its length first, so the rows are counted in a pass of their own over the narrow columns.
    """
    count = sum(rows(table).num_rows for table in scan(output, ["error", "target"]))
    if not count:
        raise ConfigError(f"{output}: no row to export: all have an error or no target")
    new_folder(out)
    files: Arrays = {}
    place, writer = 0, None
    with open(os.path.join(out, "index.csv"), "wb") as index:
        for table in _tables(output, columns, rows):
            for name, values in arrays(table).items():
                if name not in files:
                    files[name] = np.lib.format.open_memmap(
                        os.path.join(out, f"{name}.npy"), "w+", values.dtype, (count, *values.shape[1:])
                    )
                files[name][place : place + len(values)] = values
            columns = [name for name in INDEX if name in table.schema.names and not _is_list(table, name)]
            part = for_spreadsheets(table.select(columns))
            writer = writer or pyarrow.csv.CSVWriter(index, part.schema)
            writer.write_table(part)
            place += table.num_rows
        writer.close()
    for file in files.values():
        file.flush()
    return count


def _tables(output: Output, columns: list[str], rows: Callable[[pa.Table], pa.Table]) -> Iterator[pa.Table]:
    for table in scan(output, [*INDEX, *[c for c in columns if c not in INDEX], "error"]):
        table = rows(table)
        if table.num_rows:
            yield table


def _is_list(table: pa.Table, name: str) -> bool:
    return pa.types.is_nested(table.schema.field(name).type)
