"""Random resized crop and mirror image, on decoded pixels, from a generator that belongs to one image of one epoch."""

import math

import numpy as np

from levit_batch.pixels.fit import fit
from levit_batch.pixels.preprocessing import Preprocessing
from levit_batch.pixels.resize import resize
from levit_batch.training.config import AugmentConfig

ATTEMPTS = 10  # to find a crop that lies within the image


def augment(pixels: np.ndarray, config: AugmentConfig, processor: Preprocessing, rng: np.random.Generator) -> np.ndarray:
    """Decoded uint8 [H, W, 3] -> uint8 [h, w, 3] of the size that `processor` makes.

    Without a random crop the image is resized and cropped as in labelling.
    """
    out = np.empty((*processor.output(), 3), np.uint8)
    if config.crop_scale is None:
        fit(pixels, processor, pixels.shape[0] * pixels.shape[1] + out.size, out)
    else:
        top, left, height, width = random_box(pixels.shape[0], pixels.shape[1], config, rng)
        crop = np.ascontiguousarray(pixels[top : top + height, left : left + width])
        out[:] = resize(crop, processor.output(), processor.filter)
    return out[:, ::-1] if rng.random() < config.flip else out


def random_box(height: int, width: int, config: AugmentConfig, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) of a crop with a share of the area and a ratio drawn from the configured ranges.

    The area is uniform, the ratio uniform in its logarithm (Szegedy et al., "Going deeper with convolutions",
    arXiv 1409.4842, section 6). Where the image is too long and thin for that, the largest box in its middle.
    """
    low, high = (math.log(ratio) for ratio in config.crop_ratio)
    for _ in range(ATTEMPTS):
        area = height * width * rng.uniform(*config.crop_scale)
        ratio = math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    ratio = min(max(width / height, config.crop_ratio[0]), config.crop_ratio[1])
    w, h = min(width, max(1, round(height * ratio))), min(height, max(1, round(width / ratio)))
    return (height - h) // 2, (width - w) // 2, h, w
