"""Does a backend answer what torch answers in float32? Asked once in every replica, with the first real images and made ones.

On a GPU, of both its graphs: for a whole batch, and for few images over what that left behind.
"""

import numpy as np
import torch
from torch import nn

from levit_batch.errors import ConfigError
from levit_batch.inference.backends.choose import Backend

# The logits' error that rounding may cause, root mean square, in their own deviation: several times what the published sizes
# show. A layer left out or given another's weights is off by more, wrong colours by about 1.
ALLOWED = {"float32": 1e-3, "float16": 0.05, "bfloat16": 0.1}
IMAGES = 8  # of either kind
CELLS = (2, 4, 8, 16)  # of the patterns in the made ones


class CheckedBackend:
    """`backend`, compared with the folded float32 model at its first call. Raises ConfigError when they differ."""

    def __init__(self, backend: Backend, folded: nn.Module, name: str, dtype: str):
        self.backend, self.folded, self.name, self.dtype = backend, folded, name, dtype

    @property
    def batch(self) -> int:
        return self.backend.batch

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.folded is not None:
            # A first chunk may be one image, or all grey: the made ones have every colour and tell any two graphs apart.
            asked = np.concatenate([pixels[:IMAGES], made_images(pixels.shape[1:])])
            expected = reference(self.folded, asked)
            for times in dict.fromkeys((-(-self.batch // len(asked)), 1)):
                logits = self.backend(np.concatenate([asked] * times))[1]
                check(logits, np.concatenate([expected] * times), self.name, self.dtype)
            self.folded = None  # its memory is not needed any more
        return self.backend(pixels)


def made_images(shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 [IMAGES,H,W,C], always the same: coarse and fine patterns of all colours, as strong as those of photographs."""
    height, width, channels = shape
    random = torch.Generator().manual_seed(0)
    layers = [torch.randn(IMAGES, channels, n, n, generator=random) / n**0.5 for n in CELLS]
    scaled = [nn.functional.interpolate(layer, (height, width), mode="bilinear", align_corners=True) for layer in layers]
    return (128 + 70 * sum(scaled)).clamp(0, 255).permute(0, 2, 3, 1).byte().numpy()


@torch.inference_mode()
def reference(folded: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """Logits float32 [N,K] of the folded model on the CPU, a few images at a time."""
    return np.concatenate([folded(part)[1].numpy() for part in torch.tensor(pixels).split(8)])


def check(logits: np.ndarray, expected: np.ndarray, name: str, dtype: str) -> None:
    """Raises ConfigError, naming the figures, when logits [N,K] are not `expected` [N,K] up to the dtype's rounding."""
    allowed = ALLOWED[dtype]
    # What is rounded is the number itself: logits that hardly differ from each other may still be large.
    scale = max(float(expected.std()), 0.1 * float(np.abs(expected).max()), 1e-12)
    error = float(np.sqrt(np.mean((logits - expected) ** 2))) / scale
    # A label may change where two classes are closer than the errors allow.
    best = np.sort(expected, axis=1)[:, -2:]
    clear = best[:, -1] - best[:, 0] > 4 * allowed * scale
    changed = int((logits.argmax(1) != expected.argmax(1))[clear].sum())
    if not error <= allowed or changed:
        raise ConfigError(
            f"model.backend: {name} in {dtype} does not give torch's float32 results on {len(logits)} images: logit error "
            f"{error:.2g} of their deviation ({allowed:g} allowed), {changed} of {clear.sum()} clear labels changed; use "
            "model.backend=torch with model.dtype=float32"
        )
