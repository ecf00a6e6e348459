"""Rows named by (shard, row) as picks, read again from the few files that hold them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from levit_batch.errors import OutputError
from levit_batch.results.best import Pick
from levit_batch.results.export import text
from levit_batch.results.looks import COLUMNS, pick_row
from levit_batch.results.naming import naming_of, with_kept
from levit_batch.results.near.review import SCHEMA
from levit_batch.table.output import REVIEW, Output, folder_of
from levit_batch.table.read import ChunkFile, chunk_files, first_file, job_of, schema_of
from levit_batch.table.scan import scan_files

Where = tuple[str, int]  # shard, row
POINTS = 3000  # of a map
GROUPS, SHOWN = 12, 24  # of copies, of outliers and suspected labels, that are shown


def look_up(output: Output, wanted: Iterable[Where]) -> dict[Where, Pick]:
    """The picks of those `wanted` rows that the output has."""
    files, rows = holding(output, wanted)
    naming, picks = naming_of(job_of(output), schema_of(first_file(output)), kept=True), {}
    for file, table in scan_files(files, [*COLUMNS, *naming.columns]):
        for i in pc.indices_nonzero(pc.is_in(table["row"], pa.array(rows[file.folder]))).to_pylist():
            pick = pick_row(table, file.written.version, naming, "", i)
            picks[pick["shard"], pick["row"]] = {name: value for name, value in pick.items() if name != "place"}
    return picks


def holding(output: Output, wanted: Iterable[Where]) -> tuple[list[ChunkFile], dict[str, np.ndarray]]:
    """The chunk files that hold some of the `wanted` rows, and these rows, sorted, by their shard's folder."""
    by_folder: dict[str, list[int]] = {}
    for shard, row in wanted:
        by_folder.setdefault(folder_of(shard), []).append(row)
    rows = {folder: np.sort(numbers) for folder, numbers in by_folder.items()}
    return [file for file in chunk_files(output) if file.folder in rows and _holds(file, rows[file.folder])], rows


def _holds(file: ChunkFile, rows: np.ndarray) -> bool:
    first, stop = np.searchsorted(rows, [file.written.first, file.written.stop or rows[-1] + 1])
    return bool(first < stop)


def examples(output: Output) -> dict[str, list[list[Pick]]]:
    """Of review.parquet the closest `copies` (a list a group), the farthest `outliers`, and the `labels` likeliest wrong."""
    table = read_review(output, SCHEMA.names)
    copies = table.filter(table["copies"].is_valid()).sort_by("nearest_distance")
    chosen = pc.unique(copies["copies"])[:GROUPS]
    outliers = table.filter(table["outlier"]).sort_by([("distance", "descending")]).slice(0, SHOWN)
    labels = table.filter(table["suspected_label"].is_valid()).sort_by("label_quality").slice(0, SHOWN)
    grouped = [copies.filter(pc.equal(copies["copies"], group)).slice(0, SHOWN) for group in chosen]
    rows = {"copies": [part.to_pylist() for part in grouped], "outliers": [outliers.to_pylist()], "labels": [labels.to_pylist()]}
    picks = look_up(output, {(row["shard"], row["row"]) for lists in rows.values() for each in lists for row in each})
    return {
        kind: [[picks[row["shard"], row["row"]] | row | {"line": LINES[kind](row)} for row in each] for each in lists if each]
        for kind, lists in rows.items()
    }


def points(output: Output) -> pa.Table:
    """x, y and label of evenly spaced rows of review.parquet."""
    table = read_review(output, ["x", "y", "label"])
    return table.take(pa.array(np.linspace(0, len(table) - 1, min(len(table), POINTS)).astype(int)))


LINES = {
    "copies": lambda row: f"distance {row['nearest_distance']:.2g}",
    "outliers": lambda row: f"distance {row['distance']:.2g}",
    "labels": lambda row: f"rather {row['suspected_name']}; {row['label_quality']:.2g}",
}  # what stands below a picture


def read_review(output: Output, columns: list[str] | None = None) -> pa.Table:
    """The rows of review.parquet. Raises OutputError where there is none."""
    at = output.place.join(REVIEW)
    try:
        return pq.read_table(at.path, filesystem=at.filesystem, columns=columns)
    except FileNotFoundError:
        raise OutputError(f"{output}: no {REVIEW} there; write it with `levit-batch review {output}`") from None
    except (pa.ArrowInvalid, OSError) as e:
        raise OutputError(f"{at.url}: cannot be read ({e}); write it again with `levit-batch review {output}`") from e


def plain(examples: dict[str, list[list[Pick]]]) -> dict[str, Any]:
    """The same as JSON values, without what only a page needs."""
    return {kind: [[_plain(row) for row in each] for each in lists] for kind, lists in examples.items()}


def _plain(row: Pick) -> dict[str, Any]:
    left_out = ("version", "group", "error", "line", "copies", "outlier", "name", "kept")
    return text.plain(with_kept({name: value for name, value in row.items() if name not in left_out}, row["kept"]))
