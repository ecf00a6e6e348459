"""AdamW's parameter groups, and the learning rate of each step."""

import math

import torch
from torch import nn

from levit_batch.training.config import TrainConfig


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over what learns. Weight decay is on matrices and kernels only: biases, norms and attention biases are
    offsets and scales, which shrinking to zero would not simplify."""
    learns = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    decayed = [parameter for name, parameter in learns if _decays(name, parameter)]
    kept = [parameter for name, parameter in learns if not _decays(name, parameter)]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def _decays(name: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() > 1 and not name.endswith("attention_biases")


def learning_rate(step: int, steps: int, warmup: int, config: TrainConfig) -> float:
    """Of step `step` (from 0) of `steps`: a linear rise over `warmup` steps, then half a cosine to the final rate."""
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = min(1.0, (step - warmup) / max(1, steps - 1 - warmup))
    low = min(config.final_learning_rate, config.learning_rate)
    return low + (config.learning_rate - low) * (1 + math.cos(math.pi * progress)) / 2
