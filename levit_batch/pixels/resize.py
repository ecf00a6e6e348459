"""Pixels of any size -> another size, antialiased.

`torch.nn.functional.interpolate` on uint8 is what torchvision calls, so the result equals transformers' torch-backed
`LevitImageProcessor` bit for bit; resampling filters that torch lacks go through Pillow.
"""

import math
from contextlib import suppress

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

TORCH_MODES = {
    Image.Resampling.NEAREST: {"mode": "nearest-exact"},
    Image.Resampling.BILINEAR: {"mode": "bilinear", "antialias": True},
    Image.Resampling.BICUBIC: {"mode": "bicubic", "antialias": True},
}
with suppress(NotImplementedError, ValueError):  # only newer torch has it; Pillow's differs by a level or two
    functional.interpolate(torch.zeros(1, 3, 3, 3, dtype=torch.uint8), size=(2, 2), mode="lanczos", antialias=True)
    TORCH_MODES[Image.Resampling.LANCZOS] = {"mode": "lanczos", "antialias": True}
LONGEST_STEP = 4096  # pixels of a result that may be made in vain so that a part of it has the bits of the whole
WIDEST_FILTER = 3  # pixels that Lanczos reaches to each side; the others reach less far


def resize(pixels: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [size[0], size[1], 3], antialiased; the input itself where nothing is to be done."""
    if size == pixels.shape[:2]:
        return pixels
    if resample not in TORCH_MODES:
        return resize_pillow(pixels, size, resample)
    return _interpolate(pixels, resample, size=size)


def resize_window(
    pixels: np.ndarray, size: tuple[int, int], rows: slice, columns: slice, resample: Image.Resampling
) -> np.ndarray:
    """`resize(pixels, size, resample)[rows, columns]`, the same bits for less work.

    torch resizes rows first, then columns. So rows that no wanted pixel depends on need not be resized at all, and
    columns beside the window not in the second pass. What that pass makes of the unset rows is outside of the window.
    """
    if size == pixels.shape[:2] or "antialias" not in TORCH_MODES.get(resample, {}):
        return resize(pixels, size, resample)[rows, columns]
    height = pixels.shape[0]
    scale = height / size[0]
    reach = WIDEST_FILTER * max(scale, 1) + 2
    first, last = max(0, int(rows.start * scale - reach)), min(height, int(rows.stop * scale + reach) + 1)
    wide = resize(pixels[first:last], (last - first, size[1]), resample)
    column = np.empty((height, columns.stop - columns.start, 3), np.uint8)
    column[first:last] = wide[:, columns]
    return resize(column, (size[0], column.shape[1]), resample)[rows]


def resize_part(
    pixels: np.ndarray, size: tuple[int, int], rows: slice, columns: slice, resample: Image.Resampling
) -> np.ndarray:
    """`resize_window` of an image so narrow that the whole of it would grow beyond all bounds: only the pixels around the window
    are resized. The same bits where the part begins and ends between pixels of both images, else off by less than a pixel of
    the result, which is a small part of one of the image.
    """
    ours, wanted, parts = zip(*map(_part, pixels.shape[:2], size, (rows, columns)), strict=True)
    return resize_window(np.ascontiguousarray(pixels[ours]), parts, *wanted, resample)


def _part(have: int, want: int, window: slice) -> tuple[slice, slice, int]:
    """For an edge of `have` pixels that becomes `want`: what `window` depends on, and the window and the size of its resize."""
    scale, step = have / want, have // math.gcd(have, want)
    if step / scale > LONGEST_STEP:
        step = 1
    reach = WIDEST_FILTER * max(scale, 1) + 2
    first = max(0, int((window.start * scale - reach) // step * step))
    last = min(have, -int(-(window.stop * scale + reach) // step * step))
    before, after = round(first / scale), round(last / scale)
    return slice(first, last), slice(window.start - before, window.stop - before), after - before


def resize_fraction(
    pixels: np.ndarray, full: tuple[int, int], size: tuple[int, int], resample: Image.Resampling
) -> np.ndarray:
    """`resize` for pixels that are 1/2, 1/4 or 1/8 of an image of (height, width) `full`.

    The last row and column of such pixels may stand for less than a whole pixel of theirs; taken for whole ones they
    would stretch the result and move the crop, which changes labels. So the scale is that of the full image.
    """
    if resample not in TORCH_MODES or size == pixels.shape[:2]:
        return resize(pixels, size, resample)
    part = round(full[0] / pixels.shape[0])
    # torch cuts the output off at a whole number: the tiny surplus keeps it from falling one short.
    scale = [have * part / edge * (1 + 1e-12) for have, edge in zip(size, full, strict=True)]
    return _interpolate(pixels, resample, scale_factor=scale)[: size[0], : size[1]]


def _interpolate(pixels: np.ndarray, resample: Image.Resampling, **target) -> np.ndarray:
    height, width, _ = pixels.shape
    # A batch of one is ambiguous: with this batch stride torch sees channels-last and needs no repacking (2x faster).
    image = torch.from_numpy(pixels).as_strided((1, 3, height, width), (pixels.size, 1, 3 * width, 3))
    return functional.interpolate(image, **target, **TORCH_MODES[resample])[0].permute(1, 2, 0).numpy()


def resize_floats(pixels: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    """float32 [H, W, 3] -> float32 [size[0], size[1], 3]; bicubic may overshoot the range of its input."""
    if size == pixels.shape[:2]:
        return pixels
    if resample not in TORCH_MODES:
        raise ValueError(f"torch has no {resample.name} filter for floating point images; use uint8, or backend='pil'")
    image = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
    return functional.interpolate(image, size=size, **TORCH_MODES[resample])[0].permute(1, 2, 0).numpy()


def resize_pillow(pixels: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    """[H, W, 3] -> [size[0], size[1], 3] with Pillow, which knows only uint8: floats from 0 to 1 pass through it scaled,
    as in transformers' `resize`, floats that are whole numbers up to 255 become uint8. Raises ValueError for others."""
    fractions = pixels.dtype != np.uint8 and not np.allclose(pixels, pixels.astype(int))
    if pixels.min() < 0 or pixels.max() > (1 if fractions else 255):
        raise ValueError(
            f"floating point images must lie in 0..1 or be whole numbers in 0..255, not up to {pixels.max()}"
        )
    # The float32 between scaling and truncation decides the last level.
    levels = (pixels.astype(np.float64) * 255).astype(np.float32) if fractions else pixels
    resized = np.asarray(Image.fromarray(levels.astype(np.uint8)).resize(size[::-1], resample))
    return (resized.astype(np.float64) * (1 / 255)).astype(np.float32) if fractions else resized
