"""Does a backend answer what torch answers in float32? Asked with the first real images of every replica."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from levit_batch.backends import Backend
from levit_batch.errors import ConfigError


@dataclass(frozen=True)
class Allowed:
    """error: of the logits, root mean square, in standard deviations of the reference's; agreement: share of equal labels,
    of as many `images`: more where single labels may differ."""

    error: float
    agreement: float
    images: int


# Rounding of the dtype, several times what the published sizes show; a wrong graph is off by 1 and more.
ALLOWED = {
    "float32": Allowed(1e-3, 1.0, images=8),
    "float16": Allowed(0.05, 0.9, images=16),
    "bfloat16": Allowed(0.25, 0.7, images=16),
}


class CheckedBackend:
    """`backend`, whose first answer is compared with the folded float32 model's. Raises ConfigError when they differ."""

    def __init__(self, backend: Backend, folded: nn.Module, name: str, dtype: str):
        self.backend, self.folded, self.name, self.dtype = backend, folded, name, dtype

    @property
    def batch(self) -> int:
        return self.backend.batch

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        answer = self.backend(pixels)
        if self.folded is not None:
            images = ALLOWED[self.dtype].images
            check(answer[1][:images], reference(self.folded, pixels[:images]), self.name, self.dtype)
            self.folded = None  # its memory is not needed any more
        return answer


@torch.inference_mode()
def reference(folded: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """Logits float32 [N,K] of the folded model on the CPU, a few images at a time."""
    return np.concatenate([folded(part)[1].numpy() for part in torch.tensor(pixels).split(8)])


def check(logits: np.ndarray, expected: np.ndarray, name: str, dtype: str) -> None:
    """Raises ConfigError, naming the figures, when logits [N,K] are not `expected` [N,K] up to the dtype's rounding."""
    allowed = ALLOWED[dtype]
    error = float(np.sqrt(np.mean((logits - expected) ** 2)) / max(float(expected.std()), 1e-12))
    # A label may change where two classes are closer than the errors allow.
    best = np.sort(expected, axis=1)
    clear = best[:, -1] - best[:, -2] > 4 * allowed.error * expected.std() if dtype == "float32" else slice(None)
    same = (logits.argmax(1) == expected.argmax(1))[clear]
    agreement = float(same.mean()) if same.size else 1.0
    if not error <= allowed.error or agreement < allowed.agreement:
        raise ConfigError(
            f"model.backend: {name} in {dtype} does not give torch's float32 results on the first {len(logits)} images: "
            f"logit error {error:.2g} of their deviation ({allowed.error:g} allowed), {agreement:.1%} of labels equal "
            f"({allowed.agreement:.0%} needed); use model.backend=torch with model.dtype=float32"
        )
