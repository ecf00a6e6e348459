"""What tells copies by equality: a hash of an image's bytes, and one of what it looks like."""

import numpy as np
import xxhash
from PIL import Image

from levit_batch.pixels.decode import Encoded

BITS, EDGE = 64, 32
NOISE = 1e-6  # coefficients are sums of 1,024 products of bytes: what is smaller is rounding, and would be another bit elsewhere
# DCT-II of a column, the eight lowest frequencies of it: [8, EDGE]
DCT = 2 * np.cos(np.pi * np.arange(8)[:, None] * (2 * np.arange(EDGE) + 1) / (2 * EDGE))


def content_hash(data: Encoded) -> str:
    """XXH3, 128 bits, of an encoded image, as 32 hexadecimal digits: equal for the same file only."""
    return xxhash.xxh3_128_hexdigest(data)


def perceptual_hash(pixels: np.ndarray) -> int:
    """RGB pixels uint8 [H,W,3] -> 64 bits as a signed integer, of which few differ between images that look alike.

    `imagehash.phash(image)`, whose `str` is the same number in hexadecimal: the 8x8 lowest frequencies of the grey image at
    32x32, row by row from the first bit on, a one where the coefficient is above their median.
    """
    grey = np.asarray(Image.fromarray(pixels).convert("L").resize((EDGE, EDGE), Image.Resampling.LANCZOS))
    low = DCT @ grey.astype(np.float64) @ DCT.T
    low[np.abs(low) < NOISE] = 0
    return int(np.packbits(low > np.median(low)).view(">i8")[0])
