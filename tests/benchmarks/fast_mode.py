"""What `preprocess.mode: fast` changes: pixels, logits and labels against `exact`, for each size of LeViT.

    python -m tests.benchmarks.fast_mode [IMAGES]

JPEGs whose shorter edge is 768 to 2,400 pixels (smaller ones are decoded whole and do not change), windows of two real
photographs. The models are random ones that tell photographs apart (tests/support/models.py): trained weights keep the winning
class further ahead, so that label agreement here is the pessimistic end. For scale, the same comparison with
transformers' other backend (Pillow's resize in place of torch's) stands beside it.
"""

import io
import sys

import numpy as np
from PIL import Image

from levit_batch import LevitImageProcessor
from levit_batch.inference.fold import fold
from levit_batch.levit.config import VARIANTS
from levit_batch.pixels.preprocess import Preprocessor
from levit_batch.pixels.preprocessing import Preprocessing
from tests.benchmarks.precision import compared, logits_of
from tests.support.images import encode
from tests.support.models import photographs, signal_model

PROCESSOR = Preprocessing.read().to_dict()
COLUMNS = [
    "model",
    "against exact",
    "mean level difference",
    "largest logit error",
    "mean",
    "same label",
    "if ahead by 0.1",
]


def large_jpegs(count: int) -> list[bytes]:
    random = np.random.default_rng(1)
    shapes = random.integers(768, 2400, (count, 2))
    windows = (Image.fromarray(window) for window in photographs(count, side=400, seed=9))
    return [
        encode(window.resize(shape, Image.Resampling.LANCZOS), quality=92)
        for window, shape in zip(windows, shapes.tolist(), strict=True)
    ]


def main(count: int) -> None:
    images = large_jpegs(count)
    exact, fast = (Preprocessor(PROCESSOR, mode)(images)[0] for mode in ("exact", "fast"))
    plain = LevitImageProcessor("pil", do_rescale=False, do_normalize=False)
    pillow = plain([Image.open(io.BytesIO(data)) for data in images], "np").pixel_values.transpose(0, 2, 3, 1)
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for variant in VARIANTS:
        model = fold(signal_model(variant))
        reference = logits_of(model, exact)
        for name, pixels in (("fast", fast), ("Pillow's resize", pillow)):
            levels = np.abs(pixels.astype(int) - exact).mean()
            figures = compared(reference, logits_of(model, np.ascontiguousarray(pixels)))
            print(f"| LeViT-{variant} | {name} | {levels:.2f} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 192)
