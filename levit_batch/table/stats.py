"""What one chunk's rows say in sum: small enough to travel to the driver, enough for the run's record and for drift."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SCORE_BINS = 50


def chunk_stats(table: pa.Table) -> dict[str, Any]:
    """Sums over the rows of an output table, as JSON values.

    rows; errors {kind: rows}; labels {index: rows}; scores [SCORE_BINS] rows by score in [0, 1]; embedding [D] sum of the
    embeddings and norm sum of their lengths (both null without embeddings); divergence sum of head_divergence or null.
    """
    good = table.filter(pc.is_null(table["error"]))
    errors = pc.value_counts(pc.list_element(pc.split_pattern(table["error"].drop_null(), ":", max_splits=1), 0))
    labels = pc.value_counts(good["label"])
    scores, _ = np.histogram(good["score"].to_numpy(), SCORE_BINS, (0, 1))
    embedding = _embeddings(good) if "embedding" in table.schema.names else None
    return {
        "rows": table.num_rows,
        "errors": {e["values"]: e["counts"] for e in errors.to_pylist()},
        "labels": {str(e["values"]): e["counts"] for e in labels.to_pylist()},
        "scores": scores.tolist(),
        "embedding": None if embedding is None else np.round(embedding.sum(0), 4).tolist(),
        "norm": None if embedding is None else float(np.linalg.norm(embedding, axis=1).sum()),
        "divergence": pc.sum(good["head_divergence"]).as_py() or 0.0
        if "head_divergence" in table.schema.names
        else None,
    }


def _embeddings(table: pa.Table) -> np.ndarray:
    """The embeddings [N, D] as float64; rows without one are left out by the caller."""
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).astype(np.float64).reshape(-1, column.type.list_size)


def add_stats(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The stats of several chunks as if they were one."""
    total: dict[str, Any] = {
        "rows": 0, "errors": Counter(), "labels": Counter(), "scores": np.zeros(SCORE_BINS, np.int64),
        "embedding": None, "norm": None, "divergence": None,
    }  # fmt: skip
    for part in parts:
        total["rows"] += part["rows"]
        total["errors"].update(part["errors"])
        total["labels"].update(part["labels"])
        total["scores"] += np.asarray(part["scores"], np.int64)
        for key in ("norm", "divergence"):
            total[key] = _add(total[key], part[key])
        total["embedding"] = _add(
            total["embedding"], None if part["embedding"] is None else np.asarray(part["embedding"])
        )
    embedding = total["embedding"]
    return total | {
        "errors": dict(total["errors"].most_common()),
        "labels": dict(total["labels"].most_common()),
        "scores": total["scores"].tolist(),
        "embedding": None if embedding is None else embedding.tolist(),
    }


def _add(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else one + other
