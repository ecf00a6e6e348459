"""What to label next: the rows of which the model is least sure, and among these, if asked, such as are unlike each other."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from levit_batch.errors import ConfigError, OutputError
from levit_batch.results.best import Pick
from levit_batch.results.near.looked_up import Where, holding, look_up, read_review
from levit_batch.results.near.vectors import Step, files_with_embeddings, over_vectors, rows_of, silent, unit
from levit_batch.table.output import REVIEW, Output
from levit_batch.table.read import first_file, require_files, schema_of
from levit_batch.table.rows import list_matrix
from levit_batch.table.scan import scan_files

MARGIN, DIVERGENCE, OUTLIER = REASONS = ("margin", "divergence", "outlier")
SIGN = {MARGIN: -1, DIVERGENCE: 1, OUTLIER: 1}  # of a value that grows with doubt
POOL = 10  # times as many of the least sure rows are spread over


def choose(
    output: Output,
    n: int,
    by: Sequence[str] = (MARGIN,),
    diverse: bool = False,
    labelled: bool = False,
    step: Step = silent,
) -> tuple[list[Pick], int]:
    """The `n` rows to label next, best first, and how many there were to choose from.

    by: each reason ranks the rows, and `uncertainty` is the mean of the ranks, from 0 to 1. diverse: k-centre over the 10 n rows
    of the highest uncertainty. labelled: also rows that have a target. A pick has its `uncertainty` and the value of each reason.
    Raises ConfigError or OutputError for what the output has not.
    """
    _check(output, by)
    shards, numbers, values, free = _candidates(output, by, labelled, step)
    if not free.any():
        raise ConfigError(f"{output}: there is no row to choose: all have a target (--labelled takes these, too) or an error")
    uncertainty = np.mean([ranks(SIGN[reason] * values[reason][free]) for reason in by], axis=0)
    order = np.argsort(-uncertainty, kind="stable")[: n * POOL if diverse else n]
    chosen = np.flatnonzero(free)[order]
    names = shards.take(pa.array(chosen)).to_pylist()
    where = list(zip(names, numbers[chosen].tolist(), strict=True))
    places = spread(_vectors(output, where), n) if diverse else range(len(where))
    picks = look_up(output, [where[i] for i in places])
    reasons = [{reason: float(values[reason][chosen[i]]) for reason in by} for i in places]
    doubts = [{"uncertainty": float(uncertainty[order[i]])} for i in places]
    made = [picks[where[i]] | why | doubt for i, why, doubt in zip(places, reasons, doubts, strict=True)]
    return made, int(free.sum())


def _check(output: Output, by: Sequence[str]) -> None:
    schema = schema_of(first_file(output))
    for reason in by:
        if reason not in REASONS:
            raise ConfigError(f"--by {reason}: there is {', '.join(REASONS)}, a comma between them")
    if MARGIN in by and schema.field("top_scores").type.list_size < 2:
        raise ConfigError("--by margin: takes the scores of two labels a row, and predict.top_k of this output is 1")
    if DIVERGENCE in by and "head_divergence" not in schema.names:
        raise ConfigError("--by divergence: the output has no column head_divergence; label again with predict.per_head=true")


def _candidates(output: Output, by: Sequence[str], labelled: bool, step: Step):
    """Of all rows without an error: the shards, the row numbers [N], the values [N] of each reason, and which may be chosen."""
    files, columns = require_files(output), ["shard", "row", "target", "top_scores", "head_divergence", "error"]
    total, parts, shards = rows_of(files), [], []
    review = _Review(output) if OUTLIER in by else None
    for file, table in scan_files(files, columns):
        rows = table.filter(table["error"].is_null())
        values = {MARGIN: _margin, DIVERGENCE: _divergence, OUTLIER: lambda rows, v=file.written.version: review.next(rows, v)}
        free = np.ones(rows.num_rows, bool) if labelled else _without_target(rows)
        shards += rows["shard"].chunks
        parts.append((rows["row"].to_numpy(), free, *(values[reason](rows) for reason in by)))
        step("reading", table.num_rows, total)
    numbers, free, *each = (np.concatenate(kind) for kind in zip(*parts, strict=True))
    return pa.chunked_array(shards, pa.string()), numbers, dict(zip(by, each, strict=True)), free


def _margin(rows: pa.Table) -> np.ndarray:
    """How much surer the model is of its first label than of its second."""
    scores = list_matrix(rows["top_scores"])
    return scores[:, 0] - scores[:, 1]


def _divergence(rows: pa.Table) -> np.ndarray:
    return rows["head_divergence"].to_numpy()


def _without_target(rows: pa.Table) -> np.ndarray:
    if "target" not in rows.schema.names:
        return np.ones(rows.num_rows, bool)
    target = rows["target"]
    empty = pc.equal(pc.list_value_length(target), 0) if pa.types.is_nested(target.type) else pc.less(target, 0)
    return pc.fill_null(empty, True).to_numpy()


class _Review:
    """The rows of review.parquet beside those of the table, which must be the same."""

    def __init__(self, output: Output):
        self.output, self.at = output, 0
        self.table = read_review(output, ["shard", "row", "version", "distance"])

    def next(self, rows: pa.Table, version: str) -> np.ndarray:
        """Mean distance of the ten nearest of the next `rows` [N]; inf for one that had none to be held against."""
        part = self.table.slice(self.at, rows.num_rows)
        self.at += rows.num_rows
        same = part.select(["shard", "row"]).equals(rows.select(["shard", "row"]))
        if not same or pc.unique(part["version"]).to_pylist() not in ([version], []):
            raise OutputError(f"{self.output}: {REVIEW} is of another state of the table; run `levit-batch review` again")
        return pc.fill_null(part["distance"], float("inf")).to_numpy()


def ranks(values: np.ndarray) -> np.ndarray:
    """[N] -> the share of rows with a smaller value: equal values have equal ranks."""
    return np.searchsorted(np.sort(values), values) / max(len(values) - 1, 1)


def _vectors(output: Output, where: list[Where]) -> np.ndarray:
    """The embeddings float32 [N,D] of these rows, in this order, of length 1."""
    files_with_embeddings(output)
    files, rows = holding(output, where)

    def wanted(file, table: pa.Table, vectors: np.ndarray) -> tuple[list[Where], np.ndarray]:
        some = np.isin(table["row"].to_numpy(), rows[file.folder])
        table = table.filter(pa.array(some))
        return list(zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True)), unit(vectors[some])

    parts = [part for part in over_vectors(files, ("shard", "row"), wanted)]
    place = {at: i for i, at in enumerate(at for part in parts for at in part[0])}
    return np.concatenate([part[1] for part in parts])[[place[at] for at in where]]


def spread(vectors: np.ndarray, n: int) -> list[int]:
    """Greedy k-centre over vectors [P,D] of length 1: the first, then each time the one farthest from all that are chosen.

    Gonzalez, Clustering to minimize the maximum intercluster distance (TCS 38, 1985): at most twice the best radius.
    """
    chosen, distance = [0], np.full(len(vectors), np.inf, np.float32)
    while len(chosen) < min(n, len(vectors)):
        distance = np.minimum(distance, 1 - vectors @ vectors[chosen[-1]])
        distance[chosen[-1]] = -1
        chosen.append(int(distance.argmax()))
    return chosen
