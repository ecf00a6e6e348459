"""Images whose perceptual hashes are golden values: photographs, windows of them, digits, the processor's cases."""

import sys
from pathlib import Path

import numpy as np
import PIL
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

sys.path.insert(0, str(Path(__file__).parent))  # in an environment of its own there is no package `tests`
from processor_cases import CASES, case_image  # noqa: E402

# Resized by Pillow 13, one image in twenty here has other bits.
NAME = "phash.json" if int(PIL.__version__.split(".")[0]) >= 13 else "phash_before_pillow_13.json"
NARROW = 3  # pixels: of narrower images half of the frequencies are 0 but for rounding, and so half of imagehash's bits chance


def images() -> dict[str, Image.Image]:
    """By name; grey ones, too."""
    found = {}
    for name in ("china.jpg", "flower.jpg"):
        whole = found[name] = Image.fromarray(load_sample_image(name))
        found |= {f"{name} {box}": whole.crop(box) for box in ((0, 0, 32, 32), (10, 20, 300, 400), (100, 7, 640, 61))}
        found[f"{name} grey"] = whole.convert("L")
    found |= {f"digit {i}": Image.fromarray((each * 15).astype(np.uint8)) for i, each in enumerate(load_digits().images[:100])}
    cases = {f"case {case['name']}": case_image(case) for case in CASES if min(case["size"]) >= NARROW}
    return found | {name: Image.fromarray(case.astype(np.uint8)) for name, case in cases.items()}
