"""How far bfloat16 and float16 move the predictions of each size, as a Markdown table.

    python -m tests.benchmarks.precision [CROPS]

Random weights that tell photographs apart (see tests/support/models.py), 1,000 classes, crops of real photographs, folded models
on the CPU. Trained weights keep the winning class further ahead of the next one than random ones do, so that label agreement
here is the pessimistic end; the column beside it counts only the crops where float32 itself leads by over 0.1.
"""

import sys

import numpy as np
import torch

from levit_batch.inference.fold import fold
from levit_batch.levit.config import VARIANTS
from tests.support.models import photographs, signal_model

HEADER = [
    "model",
    "dtype",
    "largest logit error",
    "mean logit error",
    "same label",
    "same label where the lead is > 0.1",
]


def main(crops: int) -> None:
    images = photographs(crops, seed=77)
    assert len({image.tobytes() for image in images}) == crops
    print(f"{crops} crops; logit deviation between images in brackets\n")
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    for variant in VARIANTS:
        model = fold(signal_model(variant))
        exact = logits_of(model, images)
        for dtype in (torch.bfloat16, torch.float16):
            row = compared(exact, logits_of(model.to(dtype), images))
            name = f"LeViT-{variant} ({exact.std(axis=0).mean():.2f})"
            print(f"| {name} | {str(dtype).removeprefix('torch.')} | {' | '.join(row)} |", flush=True)
            model = fold(signal_model(variant))


@torch.inference_mode()
def logits_of(model: torch.nn.Module, images: np.ndarray, batch: int = 32) -> np.ndarray:
    """float32 [N, K]."""
    return torch.cat(
        [model(torch.tensor(part))[1].float() for part in np.array_split(images, len(images) // batch)]
    ).numpy()


def compared(exact: np.ndarray, rounded: np.ndarray) -> list[str]:
    error, same = np.abs(rounded - exact), exact.argmax(axis=1) == rounded.argmax(axis=1)
    second, first = np.sort(exact, axis=1)[:, -2:].T
    clear = first - second > 0.1
    return [f"{error.max():.4f}", f"{error.mean():.4f}", percent(same), f"{percent(same[clear])} of {clear.sum()}"]


def percent(same: np.ndarray) -> str:
    return f"{100 * same.mean():.1f} %"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 256)
