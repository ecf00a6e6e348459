"""Resizes that do less work than the plain one; that its pixels are transformers' is shown in test_processor.py."""

import numpy as np
import pytest
from PIL import Image

from levit_batch.pixels.resize import resize, resize_fraction, resize_window
from tests.support.images import CHINA

FILTERS = list(Image.Resampling)


@pytest.mark.parametrize("resample", FILTERS)
def test_a_window_has_the_bits_of_the_whole(resample):
    """Sizes, windows and noise at random: up and down, windows at the edges, one pixel wide images."""
    random = np.random.default_rng(int(resample))
    for _ in range(60):
        pixels = random.integers(0, 256, (*random.choice([1, 2, 9, 100, 200, 333, 500], 2), 3), np.uint8)
        size = tuple(int(edge) for edge in random.choice([1, 2, 30, 200, 256, 341], 2))
        starts = [int(random.integers(0, edge)) for edge in size]
        rows, columns = (slice(at, int(random.integers(at, edge)) + 1) for at, edge in zip(starts, size, strict=True))
        expected = resize(pixels, size, resample)[rows, columns]
        np.testing.assert_array_equal(resize_window(pixels, size, rows, columns, resample), expected)


def test_fractions_keep_the_size_and_the_place_of_every_pixel():
    """Against the resize of the whole image: a wrong scale would move the far corner by up to a pixel."""
    random = np.random.default_rng(4)
    for _ in range(40):
        part = int(random.choice([2, 4, 8]))
        full = tuple(int(edge) for edge in random.integers(60 * part, 90 * part, 2))
        ramp = np.add.outer(np.arange(full[0]), np.arange(full[1])) * (250 / sum(full))
        whole = np.repeat(ramp.astype(np.uint8)[:, :, None], 3, axis=2)
        small = -(-full[0] // part), -(-full[1] // part)
        padded = np.pad(whole, [(0, s * part - f) for s, f in zip(small, full, strict=True)] + [(0, 0)], mode="edge")
        fraction = padded.reshape(small[0], part, small[1], part, 3).mean((1, 3)).round().astype(np.uint8)
        made = resize_fraction(fraction, full, (40, 53), Image.Resampling.BICUBIC)
        expected = resize(whole, (40, 53), Image.Resampling.BICUBIC)
        assert made.shape == (40, 53, 3)
        assert np.abs(made.astype(int) - expected).max() <= 2


def test_pixels_of_the_right_size_are_left_alone():
    pixels = np.asarray(CHINA)
    assert resize(pixels, (427, 640), Image.Resampling.BICUBIC) is pixels
