"""LeViTs for tests: tiny ones, and random ones that tell images apart.

A freshly initialised LeViT gives every image the same label, so that comparing labels on one proves nothing.
`signal_model` takes its batch-norm statistics from real photographs and widens its heads until the logits of new
photographs deviate by about 0.6. (Much more would amplify float32 rounding beyond the 1e-4 that the parity tests allow.)
"""

import dataclasses
from functools import cache

import numpy as np
import torch
from matplotlib.cbook import get_sample_data
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import nn

from levit_batch.levit.blocks import Attention, Head, Residual
from levit_batch.levit.config import LevitConfig
from levit_batch.levit.model import LevitForImageClassification, LevitForImageClassificationWithTeacher
from levit_batch.levit.variants import VARIANTS

TINY = LevitConfig(
    image_size=64,
    hidden_sizes=(32, 48, 64),
    num_attention_heads=(2, 3, 4),
    depths=(1, 2, 1),
    key_dim=(8, 8, 8),
    num_labels=7,
)


@cache
def _sample_images() -> list[np.ndarray]:
    """Three photographs that come with scikit-learn and matplotlib: a temple, a flower, a portrait."""
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=True)) as portrait:
        return [*load_sample_images().images, np.array(portrait.convert("RGB"))]


def photographs(count: int, side: int = 224, seed: int = 0) -> np.ndarray:
    """uint8 [count, side, side, 3]: random crops of real photographs, resized, some flipped, darkened or turned."""
    rng = np.random.default_rng(seed)
    return np.stack([_view(_sample_images()[index % 3], side, rng) for index in range(count)])


def _view(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    edge = int(rng.integers(80, min(image.shape[:2])))
    top, left = (int(rng.integers(0, size - edge + 1)) for size in image.shape[:2])
    crop = torch.tensor(image[top : top + edge, left : left + edge].copy()).permute(2, 0, 1)[None].float()
    crop = nn.functional.interpolate(crop, size=(side, side), mode="bicubic", antialias=True)[0].permute(1, 2, 0)
    crop = torch.rot90(crop, int(rng.integers(4))) * float(rng.uniform(0.7, 1.2)) + float(rng.uniform(-15, 15))
    return crop.flip(1 if rng.random() < 0.5 else 0).clamp(0, 255).byte().numpy()


def normalised(images: np.ndarray) -> torch.Tensor:
    """float [B, 3, H, W] as the default processor normalises: the model's input for `photographs`."""
    pixels = torch.tensor(images).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return (pixels - mean) / std


def signal_model(
    variant: str | LevitConfig = TINY, seed: int = 0, images: np.ndarray | None = None, heads: int = 2
) -> LevitForImageClassification | LevitForImageClassificationWithTeacher:
    """A seeded random classifier (eval, float32) whose predictions differ between photographs.

    `variant` is a published size ("128S") or a configuration; `images` (uint8 [B, H, W, 3]) give the batch-norm
    statistics, by default some photographs; `heads` is 1 or 2.
    """
    config = VARIANTS[variant] if isinstance(variant, str) else variant
    config = dataclasses.replace(config, drop_path_rate=0)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = (LevitForImageClassificationWithTeacher if heads == 2 else LevitForImageClassification)(config)
        _give_signal(model)
    if images is None:
        images = photographs(32 if config.image_size > 128 else 128, config.image_size, seed=12345)
    return _calibrated(model, normalised(images))


@torch.no_grad()
def _give_signal(model: nn.Module) -> None:
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.weight.uniform_(0.7, 1.3)
            part.bias.normal_(0, 0.2)
        elif hasattr(part, "attention_biases"):
            part.attention_biases.normal_(0, 0.5)
    for part in model.modules():
        if isinstance(part, Residual):
            last = part.module.projection if isinstance(part.module, Attention) else part.module.linear_down
            last.batch_norm.weight.mul_(0.1)
        elif isinstance(part, Head):
            part.linear.bias.normal_(0, 0.1)


@torch.no_grad()
def _calibrated(model: nn.Module, pixels: torch.Tensor) -> nn.Module:
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    for part in norms:
        part.momentum = None  # plain averages: one pass gives this batch's own statistics
    spread = model.train()(pixels).logits.std(dim=0).mean()  # that of new images is about 0.6 of it
    for part in norms:
        part.momentum = 0.1
        part.running_var.clamp_(min=0.3 * part.running_var.mean())  # no channel blows up on an unusual photograph
    for part in model.modules():
        if isinstance(part, Head):
            part.linear.weight.div_(spread)
    return model.eval()


@cache
def shared_model(variant: str = "tiny", heads: int = 2) -> nn.Module:
    """`signal_model` of a published size or the tiny one, made once a test run; not to be changed."""
    return signal_model(TINY if variant == "tiny" else variant, heads=heads)
