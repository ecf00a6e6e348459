"""A map of the rows: the two directions in which their embeddings differ most."""

import numpy as np

from levit_batch.results.near.neighbours import BLOCK
from levit_batch.results.near.vectors import unit

SAMPLE = 20_000  # rows from which the directions are taken, evenly spaced: more change nothing that one sees


def plane(vectors: np.ndarray) -> np.ndarray:
    """[N,D] -> float32 [N,2]: the first two principal components of the vectors of length 1, around their mean.

    The sign of each is such that its largest weight is above 0, as scikit-learn has it; 0 where D or N is too small for one.
    """
    some = unit(vectors[np.linspace(0, len(vectors) - 1, min(len(vectors), SAMPLE)).astype(int)])
    mean = some.mean(0, dtype=np.float64)
    _, axes = np.linalg.eigh((some - mean).T @ (some - mean))  # [D,D], the widest last
    axes = axes[:, ::-1][:, :2]
    axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(0)[None], 0))
    made = np.zeros((len(vectors), 2), np.float32)
    for first in range(0, len(vectors), BLOCK):
        made[first : first + BLOCK, : axes.shape[1]] = (unit(vectors[first : first + BLOCK]) - mean) @ axes
    return made
