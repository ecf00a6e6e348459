"""Copies, outliers and suspected labels of a table, from its embeddings and scores alone, as a table beside it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from levit_batch.errors import OutputError
from levit_batch.results.naming import naming_of
from levit_batch.results.near.carried import Carried
from levit_batch.results.near.hashes import groups, look_alikes
from levit_batch.results.near.kept import Kept
from levit_batch.results.near.neighbours import BLOCK, PAIRS, K, Work, neighbours
from levit_batch.results.near.plane import plane
from levit_batch.results.near.spill import Spilled, spilling
from levit_batch.results.near.suspects import COLUMNS, Suspects
from levit_batch.results.near.vectors import Step, files_with_embeddings, over_vectors, rows_of, silent
from levit_batch.table.output import REVIEW, Output
from levit_batch.table.read import ChunkFile, job_of, schema_of
from levit_batch.table.scan import scan_files
from levit_batch.table.write import ROW_GROUP_ROWS

NEAR, FAR = 0.13, 0.37037  # cleanlab's: copies are nearer than 0.13 medians, outliers farther than Q3 + (1/0.37037 - 1) IQR
METADATA = b"levit_batch.review"
OURS = ("shard", "row", "top_labels", "image_phash")
SCHEMA = pa.schema(
    {
        "shard": pa.string(), "row": pa.int64(), "version": pa.string(), "label": pa.int64(), "copies": pa.int64(),
        "nearest_shard": pa.string(), "nearest_row": pa.int64(), "nearest_distance": pa.float32(), "distance": pa.float32(),
        "outlier": pa.bool_(), "label_quality": pa.float32(), "suspected_label": pa.int64(), "suspected_name": pa.string(),
        "x": pa.float32(), "y": pa.float32(),
    }
)  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """What is found of N rows: all arrays [N], -1, inf and NaN for what there is not."""

    group: np.ndarray  # row number that stands for a group of copies
    nearest: np.ndarray  # row number
    nearest_distance: np.ndarray
    distance: np.ndarray  # mean cosine distance of the nearest ten
    outlier: np.ndarray
    quality: np.ndarray
    suspected: np.ndarray
    plane: np.ndarray  # [N,2]


def review(
    output: Output,
    near: float = NEAR,
    step: Step = silent,
    work: Work | None = None,
) -> dict[str, Any]:
    """Write review.parquet, a row for each row without an error, and return counts and thresholds as JSON values.

    near: rows nearer than so many medians of the distance to the nearest row are copies. work: what holds rows against each
    other, see `neighbours`. Killed and called again, it goes on, unless the table has changed. Raises OutputError when
    embeddings were not written.
    """
    files = files_with_embeddings(output)
    naming = naming_of(job_of(output), schema := schema_of(files[0]), kept=True)
    names, suspects = naming.classes, Suspects(schema, len(naming.classes))
    if suspects.by == "target":
        for _, rows in scan_files(files, [*COLUMNS, "error"]):
            suspects.learn(rows.filter(rows["error"].is_null()))
    with spilling() as spill:
        parts, total = [], rows_of(files)
        for file, rows, vectors, judged in over_vectors(files, tuple(dict.fromkeys((*OURS, *COLUMNS))), _with(suspects)):
            spill.add(file.written.version, rows, vectors)
            parts.append(judged)
            step("reading", rows.num_rows, total)
        if not spill.parts:
            raise OutputError(f"{output}: no row has an embedding: all are error rows")
        table = spill.done()
        quality, suspected = (np.concatenate(kind) for kind in zip(*parts, strict=True))
        kept = Kept(output, f"{spill.state.hexdigest()}-{K}-{BLOCK}-{PAIRS}")
        judged, limits = _judge(table, *neighbours(table, K, step, work, kept), quality, suspected, near)
        summary = _summary(judged, suspects.by) | limits
        _write(output, table, judged, Carried(files, naming.kept, SCHEMA.names), names, summary)
        kept.clear()
    return summary


def _with(suspects: Suspects) -> Callable:
    """What a block is reduced to where it is read."""
    def judged(file: ChunkFile, rows: pa.Table, vectors: np.ndarray) -> tuple:
        return file, rows.select([name for name in OURS if name in rows.schema.names]), vectors, suspects.judge(rows)

    return judged


def _judge(
    table: Spilled, distances: np.ndarray, places: np.ndarray, quality: np.ndarray, suspected: np.ndarray, near: float
) -> tuple[Judged, dict[str, Any]]:
    there = np.isfinite(distances)
    mean = np.where(there, distances, 0).sum(1) / np.maximum(there.sum(1), 1)
    mean[~there[:, 0]] = np.inf
    some = there[:, 0]
    limit = near * float(np.median(distances[some, 0])) if some.any() else 0.0
    low, high = np.percentile(mean[some], (25, 75)) if some.any() else (0.0, 0.0)
    far = float(high + (1 / FAR - 1) * (high - low))
    rows, at = np.nonzero(there & (distances <= limit))
    links = [(rows, places[rows, at])] + ([] if table.phash is None else [look_alikes(table.phash)])
    group = groups(*(np.concatenate(kind) for kind in zip(*links, strict=True)), len(distances))
    alone = np.bincount(group, minlength=len(group))[group] == 1
    group = np.where(alone, -1, group)
    judged = Judged(group, places[:, 0], distances[:, 0], mean, some & (mean > far), quality, suspected, plane(table.vectors))
    return judged, {"copy_distance": limit, "outlier_distance": far, "by_hashes": table.phash is not None}


def _summary(judged: Judged, by: str | None) -> dict[str, Any]:
    members = judged.group[judged.group >= 0]
    return {
        "rows": len(judged.group), "copy_groups": len(np.unique(members)), "copies": len(members),
        "outliers": int(judged.outlier.sum()), "suspected_labels": int((judged.suspected >= 0).sum()), "labels_by": by,
        "alone": int(np.isinf(judged.nearest_distance).sum()),
    }  # fmt: skip


def _write(
    output: Output, table: Spilled, judged: Judged, carried: Carried, names: list[str], summary: dict[str, Any]
) -> None:
    def part(first: int) -> pa.Table:
        rows = np.arange(first, min(first + ROW_GROUP_ROWS, len(table)))
        return carried.beside(_rows(table, judged, rows, names))

    def write(sink: Any) -> None:
        top = part(0)
        schema = top.schema.with_metadata({METADATA: json.dumps(summary)})
        with pq.ParquetWriter(sink, schema, compression="zstd") as writer:
            writer.write_table(top.cast(schema))
            for first in range(ROW_GROUP_ROWS, len(table), ROW_GROUP_ROWS):
                writer.write_table(part(first).cast(schema))

    try:
        output.place.join(REVIEW).write_with(write)
    except OSError as e:
        raise OutputError(f"{output}: {REVIEW} cannot be written: {e}") from None


def _rows(table: Spilled, judged: Judged, rows: np.ndarray, names: list[str]) -> pa.Table:
    nearest, suspected, quality = judged.nearest[rows], judged.suspected[rows], judged.quality[rows]
    alone, group = nearest < 0, judged.group[rows]
    suspected = pa.array(suspected.astype(np.int64), mask=suspected < 0)
    columns = (
        table.names(rows), table.row[rows], pa.array(table.versions).take(pa.array(table.version[rows])),
        table.top[rows, 0].astype(np.int64), pa.array(group.astype(np.int64), mask=group < 0),
        table.names(nearest), pa.array(table.row[nearest], mask=alone), pa.array(judged.nearest_distance[rows], mask=alone),
        pa.array(judged.distance[rows].astype(np.float32), mask=alone), judged.outlier[rows],
        pa.array(quality.astype(np.float32), mask=np.isnan(quality)), suspected, pa.array(names, pa.string()).take(suspected),
        *judged.plane[rows].T.copy(),
    )  # fmt: skip
    return pa.table([pa.array(column) if isinstance(column, np.ndarray) else column for column in columns], schema=SCHEMA)
