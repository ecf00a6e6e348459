"""What a configuration costs: parameters and multiply-adds, counted by torch on a model without memory."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from levit_batch.levit.config import LevitConfig
from levit_batch.levit.model import LevitForImageClassification, LevitForImageClassificationWithTeacher


@dataclass(frozen=True)
class Cost:
    """Learnt numbers, and multiply-adds an image."""

    parameters: int
    macs: int


def cost(config: LevitConfig, heads: int = 2) -> Cost:
    """Of the whole model with one head or two.

    One multiply-add counts as one "FLOP", and the softmax as one for each score, as in the paper (arXiv 2104.01136, table
    3); norms and activations are not counted.
    """
    with torch.device("meta"):
        model = (LevitForImageClassification, LevitForImageClassificationWithTeacher)[heads - 1](config).eval()
        pixels = torch.empty(1, config.num_channels, config.image_size, config.image_size)
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten._softmax: _softmax})
    with counter, torch.no_grad():
        model(pixels)
    return Cost(sum(part.numel() for part in model.parameters()), counter.get_total_flops() // 2)


def _softmax(scores: torch.Size, *args: Any, **kwargs: Any) -> int:
    return 2 * math.prod(scores)
