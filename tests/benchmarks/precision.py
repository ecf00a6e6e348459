"""How far other arithmetic moves the predictions of each size, as a Markdown table.

    python -m tests.benchmarks.precision [dtypes | fast] [--images 256]

`dtypes`: bfloat16 and float16 against float32, on crops of real photographs. `fast`: what `preprocess.mode: fast` changes
against `exact`, on JPEGs whose shorter edge is 768 to 2,400 pixels (smaller ones are decoded whole and do not change); for
scale, the same comparison with transformers' other backend (Pillow's resize in place of torch's) stands beside it.

Random weights that tell photographs apart (see tests/support/models.py), 1,000 classes, folded models on the CPU. Trained weights
keep the winning class further ahead of the next one than random ones do, so that label agreement here is the
pessimistic end; the column beside it counts only the images where the reference itself leads by over 0.1.
"""

import argparse
import io
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image

from levit_batch import LevitImageProcessor
from levit_batch.inference.fold import fold
from levit_batch.levit.variants import VARIANTS
from levit_batch.pixels.preprocess import Preprocessor
from levit_batch.pixels.preprocessing import Preprocessing
from tests.support.images import encode
from tests.support.models import photographs, signal_model

COLUMNS = ["largest logit error", "mean logit error", "same label", "same label where the lead is > 0.1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("change", nargs="?", choices=CHANGES, default="dtypes")
    parser.add_argument("--images", type=int)
    args = parser.parse_args()
    count, columns, rows = CHANGES[args.change]
    print(f"| {' | '.join(columns + COLUMNS)} |\n|{'---|' * len(columns + COLUMNS)}")
    for row in rows(args.images or count):
        print(f"| LeViT-{' | '.join(row)} |", flush=True)


def dtypes(crops: int) -> Iterator[list[str]]:
    """Each size's name, its logits' deviation between images, a dtype and how far that moves the logits."""
    images = photographs(crops, seed=77)
    assert len({image.tobytes() for image in images}) == crops
    for variant in VARIANTS:
        exact = logits_of(fold(signal_model(variant)), images)
        for dtype in (torch.bfloat16, torch.float16):
            rounded = logits_of(fold(signal_model(variant)).to(dtype), images)
            spread = f"{exact.std(axis=0).mean():.2f}"
            yield [variant, spread, str(dtype).removeprefix("torch."), *compared(exact, rounded)]


def fast(count: int) -> Iterator[list[str]]:
    """Each size's name, another way to its pixels, their mean difference in levels and how far that moves the logits."""
    images, processor = large_jpegs(count), Preprocessing.read().to_dict()
    exact, quick = (Preprocessor(processor, mode)(images)[0] for mode in ("exact", "fast"))
    plain = LevitImageProcessor("pil", do_rescale=False, do_normalize=False)
    pillow = plain([Image.open(io.BytesIO(data)) for data in images], "np").pixel_values.transpose(0, 2, 3, 1)
    for variant in VARIANTS:
        model = fold(signal_model(variant))
        reference = logits_of(model, exact)
        for name, pixels in (("fast", quick), ("Pillow's resize", pillow)):
            levels = f"{np.abs(pixels.astype(int) - exact).mean():.2f}"
            yield [variant, name, levels, *compared(reference, logits_of(model, np.ascontiguousarray(pixels)))]


CHANGES = {
    "dtypes": (256, ["model", "deviation between images", "dtype"], dtypes),
    "fast": (192, ["model", "against exact", "mean level difference"], fast),
}


def large_jpegs(count: int) -> list[bytes]:
    random = np.random.default_rng(1)
    shapes = random.integers(768, 2400, (count, 2))
    windows = (Image.fromarray(window) for window in photographs(count, side=400, seed=9))
    return [
        encode(window.resize(shape, Image.Resampling.LANCZOS), quality=92)
        for window, shape in zip(windows, shapes.tolist(), strict=True)
    ]


@torch.inference_mode()
def logits_of(model: torch.nn.Module, images: np.ndarray, batch: int = 32) -> np.ndarray:
    """float32 [N, K]."""
    parts = np.array_split(images, max(1, len(images) // batch))
    return torch.cat([model(torch.tensor(part))[1].float() for part in parts]).numpy()


def compared(exact: np.ndarray, other: np.ndarray) -> list[str]:
    error, same = np.abs(other - exact), exact.argmax(axis=1) == other.argmax(axis=1)
    second, first = np.sort(exact, axis=1)[:, -2:].T
    clear = first - second > 0.1
    return [f"{error.max():.4f}", f"{error.mean():.4f}", percent(same), f"{percent(same[clear])} of {clear.sum()}"]


def percent(same: np.ndarray) -> str:
    return f"{100 * same.mean():.1f} %"


if __name__ == "__main__":
    main()
