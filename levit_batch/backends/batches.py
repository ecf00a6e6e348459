"""Any number of images through a graph of one fixed batch."""

from collections.abc import Callable

import numpy as np

Infer = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def in_batches(infer: Infer, batch: int, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """uint8 [N,H,W,3] -> embedding float32 [N,D], logits float32 [N,K]; `infer` takes exactly [batch,H,W,3].

    The last batch is filled up with zeros, so that every image meets the same arithmetic whatever its neighbours.
    """
    parts = [infer(padded(pixels[i : i + batch], batch)) for i in range(0, len(pixels), batch)]
    embedding, logits = (np.concatenate(arrays)[: len(pixels)] for arrays in zip(*parts, strict=True))
    return embedding, logits


def padded(pixels: np.ndarray, batch: int) -> np.ndarray:
    if len(pixels) == batch:
        return np.ascontiguousarray(pixels)
    whole = np.zeros((batch, *pixels.shape[1:]), pixels.dtype)
    whole[: len(pixels)] = pixels
    return whole
