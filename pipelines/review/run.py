"""A review whose parts are done on the nodes of a Ray cluster; reading, keeping and judging stay in this process.

The nodes see neither the output nor its store: a label's embeddings are sent along, once for all parts of the label.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from levit_batch.errors import JobError, brief
from levit_batch.job.config import ComputeConfig
from levit_batch.results.near.neighbours import Near, Part, Piece, joined, nearest
from levit_batch.results.near.review import NEAR, review
from levit_batch.results.near.spill import Spilled
from levit_batch.results.near.vectors import Step, silent
from levit_batch.table.output import Output
from pipelines.cluster.session import ray_session

AHEAD = 2  # parts for each CPU, of which one is done


def review_on(address: str, output: Output, near: float = NEAR, step: Step = silent, verbose: bool = False) -> dict[str, Any]:
    """`review`, on the cluster at `address`."""
    with ray_session(ComputeConfig(address=address), verbose):
        return review(output, near, step, on_ray)


def on_ray(table: Spilled, k: int, parts: Iterable[Part]) -> Iterator[tuple[Part, Near]]:
    """Each part in a task of one CPU, in order; Ray does again what a lost node had."""
    task, waiting, sent = ray.remote(num_cpus=1)(done_there), deque(), _Sent(table.vectors)
    most = AHEAD * max(int(ray.cluster_resources().get("CPU", 1)), 1)
    try:
        for part in parts:
            spans = [(piece.first, piece.stop) for piece in part]
            waiting.append((part, task.remote(k, spans, *(sent.members(piece) for piece in part))))
            if len(waiting) > most:
                yield _result(*waiting.popleft())
        while waiting:
            yield _result(*waiting.popleft())
    except RayError as e:
        raise JobError(f"the cluster lost a part of the review: {brief(e)}; run the same again: it goes on") from e


def done_there(k: int, spans: list[tuple[int, int]], *vectors: np.ndarray) -> Near:
    """The nearest of rows first:stop of each span, among the rows of the `vectors` [M,D] beside it, which are numbered from 0."""
    import torch

    torch.set_num_threads(1)
    return joined([nearest(part, Piece(np.arange(len(part)), *span), k) for span, part in zip(spans, vectors, strict=True)])


def _result(part: Part, reference: "ray.ObjectRef") -> tuple[Part, Near]:
    """With the numbers of the table's rows in place of those that were sent."""
    distances, places = ray.get(reference)
    places, at = places.copy(), 0
    for piece in part:
        some = places[at : at + len(piece.rows)]
        some[some >= 0] = piece.members[some[some >= 0]]
        at += len(piece.rows)
    return part, (distances, places)


class _Sent:
    """The embeddings of one label's rows in Ray's store, until another label's are asked for and no task needs them."""

    def __init__(self, vectors: np.ndarray):
        self.vectors, self.of, self.reference = vectors, None, None

    def members(self, piece: Piece) -> "ray.ObjectRef":
        if self.of is not piece.members:
            self.of, self.reference = piece.members, ray.put(self.vectors[piece.members])
        return self.reference
