"""Any number of images through a graph of one fixed batch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass
class FixedBatch:
    """A `Backend` of `infer`, which takes exactly [batch,H,W,3] and gives embedding and logits.

    The last batch is filled up with zeros, so that every image meets the same arithmetic whatever its neighbours.
    """

    infer: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    batch: int

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        starts = range(0, len(pixels), self.batch)
        parts = [self.infer(padded(pixels[i : i + self.batch], self.batch)) for i in starts]
        embedding, logits = (np.concatenate(arrays)[: len(pixels)] for arrays in zip(*parts, strict=True))
        return embedding, logits


def padded(pixels: np.ndarray, batch: int) -> np.ndarray:
    if len(pixels) == batch:
        return np.ascontiguousarray(pixels)
    whole = np.zeros((batch, *pixels.shape[1:]), pixels.dtype)
    whole[: len(pixels)] = pixels
    return whole
