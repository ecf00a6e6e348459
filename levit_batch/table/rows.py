"""Predictions and errors put back beside the rows they belong to, as an output table."""

from typing import Any

import numpy as np
import pyarrow as pa

from levit_batch.job.answers import Answers
from levit_batch.job.row import IMAGE_HASH, IMAGE_PHASH, KEPT, TARGET, RowSpec, kept_name, output_schema

COLUMNS = (
    "label", "score", "top_labels", "top_scores", "embedding", "logits", "head_label", "distill_label", "head_divergence",
)  # fmt: skip
NOT_FINITE = "predict: the model gave values that are not finite; use model.dtype and predict.embeddings float32"


def output_table(
    shard: str, first: int, read: pa.Table, errors: list[str | None], answers: Answers | None, spec: RowSpec
) -> pa.Table:
    """One output row for each row of `read`, in its order.

    errors: "kind: message" or None for each of the N rows. `answers` holds, in order, the rows without an error
    (None when there is none); those whose values are not finite become error rows here.
    """
    schema = output_schema(spec)
    if not errors:  # a shard that holds nothing
        return schema.empty_table()
    bad = np.array([error is not None for error in errors], bool)
    good = np.flatnonzero(~bad)
    if answers is not None and not answers.finite.all():
        errors = list(errors)
        for i in good[~answers.finite]:
            errors[i] = NOT_FINITE
            bad[i] = True
    columns = {
        "shard": pa.repeat(pa.scalar(shard), len(errors)),
        "row": pa.array(np.arange(first, first + len(errors))),
        "error": pa.array(errors, pa.string()),
    }
    columns |= {kept_name(name): read[KEPT.format(i)] for i, name in enumerate(spec.kept.names)}
    if spec.target is not None:
        columns["target"] = read[TARGET]
    if spec.hash:
        columns |= {"image_hash": read[IMAGE_HASH], "image_phash": read[IMAGE_PHASH]}
    for name in COLUMNS:
        if name in schema.names:
            values = None if answers is None else getattr(answers, name)
            columns[name] = _spread(values, good, bad, schema.field(name).type)
    names = pa.array(spec.class_names, pa.string())
    columns["label_name"] = names.take(columns["label"])
    return pa.table([_cast(columns[field.name], field.type) for field in schema], schema=schema)


def _spread(values: np.ndarray | None, good: np.ndarray, bad: np.ndarray, kind: pa.DataType) -> pa.Array:
    """`values` [G] or [G, k] at the places `good` of N rows, null at `bad`."""
    if values is None:
        return pa.nulls(len(bad), kind)
    whole = values if len(good) == len(bad) else np.zeros((len(bad), *values.shape[1:]), values.dtype)
    if whole is not values:
        whole[good] = values
    mask = pa.array(bad) if bad.any() else None
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(pa.array(whole.reshape(-1), kind.value_type), type=kind, mask=mask)
    return pa.array(whole, kind, mask=bad)


def _cast(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    return column if column.type == kind else column.cast(kind)


def list_matrix(column: pa.ChunkedArray | pa.Array) -> Any:
    """A column of fixed-size lists as a numpy array [N, W]; NaN (for integers -1) where a list or an element is null."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    width = column.type.list_size
    values = column.values.slice(column.offset * width, len(column) * width)
    if values.null_count and pa.types.is_integer(values.type):
        values = values.fill_null(-1)
    return values.to_numpy(zero_copy_only=False).reshape(len(column), width)
