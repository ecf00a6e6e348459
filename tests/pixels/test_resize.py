"""Resizes that do less work than the plain one; that its pixels are transformers' is shown in test_processor.py."""

import numpy as np
import pytest
from PIL import Image

from levit_batch.pixels.resize import TORCH_MODES, resize, resize_fraction, resize_part, resize_window
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


EXACT = [(1, 300), (300, 1), (2, 600), (600, 2), (4, 999), (64, 500), (600, 32), (200, 200)]
ROUNDED = [(3, 700), (700, 3), (7, 1500), (13, 999), (999, 13)]


def part_and_whole(height: int, width: int, resample: Image.Resampling) -> tuple[np.ndarray, np.ndarray]:
    """The middle of a photograph's rows or columns, as LeViT's crop takes it."""
    pixels = np.array(CHINA.resize((width, height)))
    size = (256 * height // width, 256) if width <= height else (256, 256 * width // height)
    window = [slice((edge - 224) // 2, (edge - 224) // 2 + 224) for edge in size]
    return resize_part(pixels, size, *window, resample), resize_window(pixels, size, *window, resample)


@pytest.mark.parametrize("resample", TORCH_MODES)
@pytest.mark.parametrize(("height", "width"), EXACT)
def test_a_part_that_begins_and_ends_between_pixels_has_the_bits_of_the_whole(height, width, resample):
    part, whole = part_and_whole(height, width, resample)
    np.testing.assert_array_equal(part, whole)


@pytest.mark.parametrize(("height", "width"), ROUNDED)
def test_any_other_part_is_off_by_less_than_a_pixel(height, width):
    part, whole = part_and_whole(height, width, Image.Resampling.BICUBIC)
    assert part.shape == whole.shape and np.abs(part.astype(int) - whole).max() <= 5


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
