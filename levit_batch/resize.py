"""Pixels of any size -> the size the model wants, as the checkpoint's image processor does it: resize, centre crop.

`torch.nn.functional.interpolate` on uint8 is what torchvision calls, so the result equals transformers' torch-backed
`LevitImageProcessor` bit for bit; resampling filters that torch lacks go through Pillow.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from levit_batch.errors import CheckpointError, RowError

TORCH_MODES = {
    Image.Resampling.NEAREST: {"mode": "nearest-exact"},
    Image.Resampling.BILINEAR: {"mode": "bilinear", "antialias": True},
    Image.Resampling.BICUBIC: {"mode": "bicubic", "antialias": True},
}
with suppress(NotImplementedError, ValueError):  # since torch 2.12 or so; Pillow's differs by a level or two
    functional.interpolate(torch.zeros(1, 3, 3, 3, dtype=torch.uint8), size=(2, 2), mode="lanczos", antialias=True)
    TORCH_MODES[Image.Resampling.LANCZOS] = {"mode": "lanczos", "antialias": True}


@dataclass(frozen=True)
class Geometry:
    """Where the pixels go. `edge` scales the shorter edge to that length; `size` is a fixed (height, width)."""

    edge: int | None
    size: tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: Image.Resampling

    @classmethod
    def from_processor(cls, processor: Mapping) -> "Geometry":
        """From the values of a `preprocessor_config.json`. Raises CheckpointError for values that make no sense."""
        edge, size = _resize_target(processor["size"]) if processor["do_resize"] else (None, None)
        crop = _height_width(processor["crop_size"], "crop_size") if processor["do_center_crop"] else None
        try:
            return cls(edge, size, crop, Image.Resampling(processor["resample"]))
        except ValueError:
            raise CheckpointError(
                f"preprocessor_config.json: resample is {processor['resample']!r}; it must be a Pillow filter, 0 to 5"
            ) from None

    def output(self) -> tuple[int, int]:
        """(height, width) of every result. Raises CheckpointError where it would depend on the image."""
        if fixed := self.crop or self.size:
            return fixed
        raise CheckpointError(
            "preprocessor_config.json: images would come out in different sizes, and LeViT takes one; "
            "set do_center_crop with a crop_size, or do_resize with a size of height and width"
        )

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the resize, before the crop."""
        if self.size:
            return self.size
        if self.edge is None:
            return height, width
        if width <= height:
            return int(self.edge * height / width), self.edge
        return self.edge, int(self.edge * width / height)

    def sharp_edge(self) -> int:
        """An image whose shorter edge has this many pixels resizes to nearly what the whole of it would (0: unknown).

        Half as long again as the result: the mean difference is then under 1 level of 255, and 3 at 1.0 times.
        """
        return int(1.5 * (max(self.size) if self.size else self.edge or 0))


def _resize_target(size: Mapping | int) -> tuple[int | None, tuple[int, int] | None]:
    """LeViT scales the shorter edge to 256/224 of what `size` says; a fixed size it leaves alone."""
    edge = size if isinstance(size, int) else size.get("shortest_edge") if isinstance(size, Mapping) else None
    if edge:
        return int((256 / 224) * edge), None
    return None, _height_width(size, "size")


def _height_width(size: object, field: str) -> tuple[int, int]:
    pair = (size.get("height"), size.get("width")) if isinstance(size, Mapping) else size
    pair = (pair, pair) if isinstance(pair, int) else tuple(pair)
    if len(pair) == 2 and all(isinstance(edge, int) and edge > 0 for edge in pair):
        return pair
    raise CheckpointError(f"preprocessor_config.json: {field} is {size!r}; it must be a number or a height and width")


def resize(pixels: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    """uint8 [H, W, 3] -> uint8 [size[0], size[1], 3], antialiased; the input itself where nothing is to be done."""
    if size == pixels.shape[:2]:
        return pixels
    if resample not in TORCH_MODES:
        return resize_pillow(pixels, size, resample)
    return _interpolate(pixels, resample, size=size)


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


def fit(pixels: np.ndarray, size: tuple[int, int], geometry: Geometry, max_pixels: int, out: np.ndarray) -> None:
    """Resize and crop `pixels`, uint8 [h, w, 3], into `out`; `size` is (height, width) of the image they stand for.

    An image so narrow that its resize would make more than `max_pixels` is a bomb.
    """
    target = height, width = geometry.resized(*size)
    if height * width > max(max_pixels, size[0] * size[1]):
        raise RowError(
            f"bomb: {size[1]}x{size[0]} pixels grow to {width}x{height} in the resize, "
            f"source.max_image_pixels allows {max_pixels}"
        )
    if pixels.shape[:2] == size:
        resized = resize(pixels, target, geometry.resample)
    else:
        resized = resize_fraction(pixels, size, target, geometry.resample)
    centre_crop(resized, out)
