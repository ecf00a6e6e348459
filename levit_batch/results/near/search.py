"""The rows of a table nearest to one vector, by an exact scan of the stored embeddings: no index, no model."""

from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.errors import ConfigError, OutputError
from levit_batch.results.best import Best, Pick
from levit_batch.results.looks import COLUMNS, pick_row
from levit_batch.results.naming import Naming, naming_of
from levit_batch.results.near.looked_up import look_up
from levit_batch.results.near.vectors import Step, cosines, files_with_embeddings, over_vectors, rows_of, silent
from levit_batch.table.output import Output, folder_of
from levit_batch.table.read import ChunkFile, job_of, schema_of
from levit_batch.table.scan import scan_files

NEAREST = "nearest"


def search(
    output: Output,
    query: np.ndarray,
    n: int = 20,
    itself: tuple[str, int] | None = None,
    step: Step = silent,
) -> tuple[list[Pick], int]:
    """The `n` rows whose embeddings have the largest cosine similarity to `query` [D], nearest first, and how many were compared.

    itself: (shard, row) that is not compared. A pick has its `similarity`; equal ones stand
    in the order of shard and row. Raises OutputError when embeddings were not written or have another width.
    """
    files, naming = files_with_embeddings(output), Naming(job_of(output)["class_names"])
    best, compared, total = Best(n), 0, rows_of(files)

    def near(file: ChunkFile, rows: pa.Table, vectors: np.ndarray) -> tuple[ChunkFile, pa.Table, np.ndarray]:
        if vectors.shape[1] != len(query):
            raise OutputError(f"{output}: its embeddings are {vectors.shape[1]} wide, not {len(query)} as the query")
        return file, rows, cosines(vectors, query)

    for file, rows, similarity in over_vectors(files, COLUMNS, near):
        places = np.flatnonzero(_others(rows, itself))
        best.add(-similarity[places], places, partial(pick_row, rows, file.written.version, naming, NEAREST))
        compared += len(places)
        step("searching", rows.num_rows, total)
    known = look_up(output, [(pick["shard"], pick["row"]) for pick in best.kept])  # only of these what was kept is read
    return [_said(pick, known.get((pick["shard"], pick["row"]), pick)) for pick in best.kept], compared


def _others(rows: pa.Table, itself: tuple[str, int] | None) -> np.ndarray:
    """Which rows [N] are not `itself`."""
    if itself is None or not rows.num_rows or rows["shard"][0].as_py() != itself[0]:
        return np.ones(rows.num_rows, bool)
    return rows["row"].to_numpy() != itself[1]


def _said(pick: Pick, known: Pick) -> Pick:
    said = {name: value for name, value in pick.items() if name not in ("key", "place")}
    return said | {"name": known["name"], "kept": known["kept"], "similarity": -pick["key"]}


def find_named(output: Output, name: str) -> tuple[str, int] | None:
    """(shard, row) of the row whose file is called `name`; None where there is none, or no column names the files.

    Raises ConfigError when several rows are called so.
    """
    files = files_with_embeddings(output)
    column = naming_of(job_of(output), schema_of(files[0])).column
    found: list[tuple[str, int]] = []
    for _, rows in scan_files(files, ["shard", "row", column]) if column else ():
        rows = rows.filter(pc.equal(rows[column], name))
        found += zip(rows["shard"].to_pylist(), rows["row"].to_pylist(), strict=True)
    if len(found) > 1:
        some = " or ".join(f"{shard}:{row}" for shard, row in found[:3])
        raise ConfigError(f"{name}: {len(found)} rows of {output} have this {column}: name one by SHARD:ROW, as {some}")
    return found[0] if found else None


def find_row(output: Output, shard: str, row: int) -> tuple[Pick, np.ndarray]:
    """One row as a pick, and its embedding [D]. Raises ConfigError when the output has no such row, or the row no embedding."""
    files = [file for file in files_with_embeddings(output) if file.folder == folder_of(shard)]
    if not files:
        raise ConfigError(f"{shard}:{row}: {output} has no shard {shard}; `levit-batch show` names shards in its first column")
    naming = naming_of(job_of(output), schema_of(files[0]), kept=True)
    for file in files:
        if file.written.first <= row and (file.written.stop is None or row < file.written.stop):
            for rows, vectors in over_vectors([file], [*COLUMNS, *naming.columns], lambda _, rows, vectors: (rows, vectors)):
                for i in np.flatnonzero(rows["row"].to_numpy() == row):
                    pick = pick_row(rows, file.written.version, naming, "query", int(i))
                    return {name: value for name, value in pick.items() if name != "place"}, vectors[i]
            raise ConfigError(f"{shard}:{row}: that row has no embedding: it is an error row, or the shard ends before it")
    raise ConfigError(f"{shard}:{row}: {output} has no such row of that shard")
