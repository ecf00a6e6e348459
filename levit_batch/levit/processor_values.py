"""One image's planes, uint8 or float32 [3, H, W] -> the values that a caller asked for, for `processor.py`.

The two backends of transformers round differently in the last bit, so each is followed in its own way.
"""

from typing import Any

import numpy as np
import torch

from levit_batch.levit.processor_images import FIRST, LAST
from levit_batch.pixels.preprocessing import Preprocessing

Values = np.ndarray | torch.Tensor


# (pixels * rescale_factor - image_mean) / image_std in float32, [3, H, W], or as asked less of it.
def as_torch(planes: torch.Tensor, values: Preprocessing) -> torch.Tensor:
    """The factor goes into mean and deviation, so that each value is touched twice and not three times."""
    if not values.do_normalize:
        return planes * values.rescale_factor if values.do_rescale else planes
    scale = 1.0 / values.rescale_factor if values.do_rescale else 1.0
    mean = torch.tensor(values.image_mean) * scale
    std = torch.tensor(values.image_std) * scale
    return (planes.to(torch.float32) - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


def as_pillow(planes: np.ndarray, values: Preprocessing) -> np.ndarray:
    if values.do_rescale:
        planes = (planes.astype(np.float64) * values.rescale_factor).astype(np.float32)
    if not values.do_normalize:
        return planes
    mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (values.image_mean, values.image_std))
    return (planes.astype(np.float32) - mean) / std


def pad(values: list[Values], size: dict[str, int] | None) -> list[Values]:
    """Zeros below and to the right of each, up to `size` or the largest of all. Raises ValueError where one is larger."""
    largest = [max(value.shape[axis] for value in values) for axis in (1, 2)]
    height, width = (size["height"], size["width"]) if size else largest
    if largest[0] > height or largest[1] > width:
        raise ValueError(f"pad_size {height} x {width} is smaller than an image of {largest[0]} x {largest[1]}")
    return [_padded(value, height - value.shape[1], width - value.shape[2]) for value in values]


def _padded(value: Values, below: int, right: int) -> Values:
    if isinstance(value, torch.Tensor):
        return torch.nn.functional.pad(value, (0, right, 0, below))
    return np.pad(value, ((0, 0), (0, below), (0, right)))


def arranged(values: list[Values], data_format: str | None) -> list[Values]:
    """[3, H, W] or, for "channels_last", [H, W, 3]. Raises ValueError for any other word."""
    if data_format in (None, FIRST):
        return values
    if data_format != LAST:
        raise ValueError(f"data_format must be {FIRST!r} or {LAST!r}, got {data_format!r}")
    return [value.permute(1, 2, 0) if isinstance(value, torch.Tensor) else value.transpose(1, 2, 0) for value in values]


def stack(values: list[Values], return_tensors: str | None, device: str | torch.device | None) -> Any:
    """One tensor ("pt") or array ("np") of all, or the list of them (None), tensors on `device`. Raises ValueError."""
    if return_tensors not in (None, "pt", "np"):
        raise ValueError(f"return_tensors must be 'pt', 'np' or None, got {return_tensors!r}")
    if return_tensors and len({tuple(value.shape) for value in values}) > 1:
        raise ValueError("the images differ in size after preprocessing; crop or pad them, or pass return_tensors=None")
    if return_tensors == "pt":
        return torch.stack([torch.as_tensor(value) for value in values]).to(device)
    if return_tensors == "np":
        values = [np.asarray(value) for value in values]
    if device is not None and isinstance(values[0], np.ndarray) and torch.device(device).type != "cpu":
        raise ValueError(f"numpy arrays cannot be on {device}; ask for return_tensors='pt'")
    if return_tensors == "np":
        return np.stack(values)
    return values if device is None or isinstance(values[0], np.ndarray) else [value.to(device) for value in values]
