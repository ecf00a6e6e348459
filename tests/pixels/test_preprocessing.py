"""Sizes and crops by the processor's values; what is wrong in them is tested in test_preprocess.py."""

import numpy as np
import pytest

from levit_batch.pixels.fit import centre_crop
from levit_batch.pixels.preprocessing import Preprocessing

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
    assert Preprocessing.read(LEVIT).resized(height, width) == resized


def test_a_fractional_edge_is_allowed():
    """Every eighth edge cannot be written as int(256/224 * whole number)."""
    assert Preprocessing.read(LEVIT | {"size": {"shortest_edge": 217.4375}}).resized(300, 300) == (248, 248)


def test_a_smaller_image_is_centred_on_black():
    small = np.full((3, 4, 3), 9, np.uint8)
    for odd_before, left in ((False, 0), (True, 1)):
        out = np.full((2, 5, 3), 77, np.uint8)
        centre_crop(small, out, odd_before)
        assert (out[:, left : left + 4] == 9).all() and (out[:, 4 - 4 * left] == 0).all()
