"""A decoded image -> its place in the array that the model takes: resize, then centre crop."""

import numpy as np

from levit_batch.pixels.preprocessing import Preprocessing
from levit_batch.pixels.resize import resize, resize_fraction, resize_part, resize_window


def fit(
    pixels: np.ndarray, preprocessing: Preprocessing, max_pixels: int, out: np.ndarray, size: tuple[int, int] | None = None
) -> None:
    """Resize and crop `pixels`, uint8 [h, w, 3], into `out`.

    `size` is (height, width) of the image, where `pixels` are a fraction of it. Of an image so narrow that its resize would make
    more than `max_pixels`, only what surrounds the crop is resized.
    """
    size = size or pixels.shape[:2]
    target = height, width = preprocessing.resized(*size)
    if pixels.shape[:2] != size:
        centre_crop(resize_fraction(pixels, size, target, preprocessing.filter), out)
    elif height < out.shape[0] or width < out.shape[1]:
        centre_crop(resize(pixels, target, preprocessing.filter), out)
    else:
        window = [_centre(*edges, False)[0] for edges in zip(target, out.shape[:2], strict=True)]
        made = max(size[0] * width, height * out.shape[1])  # at most, on the way
        method = resize_part if made > max(max_pixels, size[0] * size[1]) else resize_window
        out[:] = method(pixels, target, *window, preprocessing.filter)


def centre_crop(pixels: np.ndarray, out: np.ndarray, odd_before: bool = False) -> None:
    """Write the centre of `pixels` [H, W, 3] into `out` [h, w, 3]; black surrounds an image that is smaller.

    Of an odd number of missing rows or columns, the odd one is added after the image, or before it if `odd_before`.
    """
    axes = [_centre(*edges, odd_before) for edges in zip(pixels.shape[:2], out.shape[:2], strict=True)]
    source, target = zip(*axes, strict=True)
    if pixels.shape[0] < out.shape[0] or pixels.shape[1] < out.shape[1]:
        out[:] = 0
    out[target] = pixels[source]


def _centre(have: int, want: int, odd_before: bool) -> tuple[slice, slice]:
    """Which part of an axis to take, and where to put it."""
    if have >= want:
        start = (have - want) // 2
        return slice(start, start + want), slice(0, want)
    start = (want - have + odd_before) // 2
    return slice(0, have), slice(start, start + have)
