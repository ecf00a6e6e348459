"""Every Pillow mode -> 8-bit RGB, by rules that lose no image and surprise nobody."""

import warnings

import numpy as np
from PIL import Image

# Pillow warns about odd files on stderr. A filter for its modules, since `catch_warnings` is not safe across threads.
warnings.filterwarnings("ignore", module=r"PIL\.")


def to_rgb(image: Image.Image) -> np.ndarray:
    """A loaded Pillow image of any mode -> uint8 [H, W, 3].

    Transparency (LA, PA, RGBA, a transparent palette entry or colour) is laid over white: what lies under
    transparent pixels is often arbitrary, and white is what viewers and transformers' `convert_to_rgb` show.
    16-bit values keep their high byte, as Pillow does for 16-bit colour. 32-bit integers and floats are scaled
    from 0..full scale, where full scale is the first of 1 (floats only), 255 and 65535 that holds the largest value,
    else that value itself; negative values and NaN are black. All else is Pillow's `convert("RGB")`.
    """
    if image.mode.startswith("I;16"):
        return _grey_to_rgb((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        return _grey_to_rgb(_scale(np.asarray(image), floats=image.mode == "F"))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return np.array(image.convert("RGB"))


def _grey_to_rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _scale(values: np.ndarray, floats: bool) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # a NaN that signals
        values = values.astype(np.float64)
    values = np.clip(np.nan_to_num(values, posinf=0, neginf=0), 0, None)
    largest = values.max(initial=0)
    full_scale = next((s for s in ((1, 255, 65535) if floats else (255, 65535)) if largest <= s), largest)
    return np.rint(values * (255 / full_scale)).astype(np.uint8)
