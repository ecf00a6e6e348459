"""Any number of images through a graph of one fixed batch."""

from collections.abc import Callable, Iterator
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
        parts = [self.infer(part) for part in batches(pixels, self.batch)]
        embedding, logits = (np.concatenate(arrays)[: len(pixels)] for arrays in zip(*parts, strict=True))
        return embedding, logits


def batches(pixels: np.ndarray, batch: int) -> Iterator[np.ndarray]:
    """Arrays [batch,H,W,3] over the images in order, without a copy; the last is filled up with zeros."""
    for start in range(0, len(pixels), batch):
        part = pixels[start : start + batch]
        if len(part) < batch:
            part = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), part.dtype)])
        yield np.ascontiguousarray(part)
