"""Sizes and crops; that the pixels are transformers' is shown in test_processor.py."""

import numpy as np
import pytest
from PIL import Image

from levit_batch.resize import Geometry, centre_crop, resize, resize_fraction
from tests.support.images import CHINA

LEVIT = {"do_resize": True, "size": 224, "resample": 3, "do_center_crop": True, "crop_size": 224}


@pytest.mark.parametrize(
    "height, width, resized",
    [
        (375, 500, (256, 341)),
        (500, 375, (341, 256)),
        (1, 10, (256, 2560)),
        (256, 256, (256, 256)),
        (100, 99, (258, 256)),
    ],
)
def test_the_shorter_edge_becomes_256_and_the_longer_is_rounded_down(height, width, resized):
    assert Geometry.from_processor(LEVIT).resized(height, width) == resized


def test_a_fractional_edge_is_allowed():
    """Every eighth edge cannot be written as int(256/224 * whole number)."""
    assert Geometry.from_processor(LEVIT | {"size": {"shortest_edge": 217.4375}}).resized(300, 300) == (248, 248)


def test_a_smaller_image_is_centred_on_black():
    small = np.full((3, 4, 3), 9, np.uint8)
    for odd_before, left in ((False, 0), (True, 1)):
        out = np.full((2, 5, 3), 77, np.uint8)
        centre_crop(small, out, odd_before)
        assert (out[:, left : left + 4] == 9).all() and (out[:, 4 - 4 * left] == 0).all()


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
