"""Encoded images in, one array of pixels and the errors out."""

import numpy as np
import pytest

from levit_batch.errors import ROW_ERROR_KINDS
from levit_batch.preprocess import Preprocessor
from tests.support.images import CHINA, encode

LEVIT = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
}


@pytest.fixture
def preprocess():
    return Preprocessor(LEVIT, mode="exact", max_pixels=10_000_000, timeout=60)


def test_a_bad_image_costs_only_its_own_row(preprocess):
    good = encode(CHINA)
    pixels, errors = preprocess([good, None, b"", good[:9000], b"not an image", good])
    kinds = [error and error.split(":")[0] for error in errors]
    assert kinds == [None, "null", "empty", "truncated", "decode", None]
    assert set(filter(None, kinds)) <= ROW_ERROR_KINDS.keys()
    assert pixels.shape == (6, 224, 224, 3) and pixels.dtype == np.uint8
    assert not pixels[1:5].any() and pixels[0].any()
    assert np.array_equal(pixels[0], pixels[5])


def test_out_is_written_in_place_and_leftovers_do_not_show(preprocess):
    out = np.full((4, 224, 224, 3), 7, np.uint8)
    pixels, _ = preprocess([encode(CHINA), None], out=out)
    assert pixels.base is out and len(pixels) == 2
    assert not out[1].any() and (out[2:] == 7).all()
