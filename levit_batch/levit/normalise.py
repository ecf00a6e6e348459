"""uint8 or float pixels -> what the model's first layer expects, with the rounding of either transformers backend."""

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from levit_batch.levit.processor import LevitImageProcessor


def rescale_and_normalise(pixels: np.ndarray, processor: "LevitImageProcessor") -> np.ndarray | torch.Tensor:
    """[H, W, 3] -> [3, H, W]: (pixels * rescale_factor - image_mean) / image_std in float32, or as asked less of it.

    A tensor for the torch backend, an array for Pillow's; the two round differently in the last bit.
    """
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
    return (
        _as_pillow(planes, processor) if processor.backend == "pil" else _as_torch(torch.from_numpy(planes), processor)
    )


def _as_torch(planes: torch.Tensor, processor: "LevitImageProcessor") -> torch.Tensor:
    """The factor goes into mean and deviation, so that each value is touched twice and not three times."""
    if not processor.do_normalize:
        return planes * processor.rescale_factor if processor.do_rescale else planes
    scale = 1.0 / processor.rescale_factor if processor.do_rescale else 1.0
    mean = torch.tensor(processor.image_mean) * scale
    std = torch.tensor(processor.image_std) * scale
    return (planes.to(torch.float32) - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


def _as_pillow(planes: np.ndarray, processor: "LevitImageProcessor") -> np.ndarray:
    if processor.do_rescale:
        planes = (planes.astype(np.float64) * processor.rescale_factor).astype(np.float32)
    if not processor.do_normalize:
        return planes
    mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (processor.image_mean, processor.image_std))
    return (planes.astype(np.float32) - mean) / std
