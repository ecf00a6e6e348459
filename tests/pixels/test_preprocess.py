"""Encoded images in, one array of pixels and the errors out."""

import io
import pickle

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from levit_batch import LevitImageProcessor
from levit_batch.errors import ROW_ERROR_KINDS, CheckpointError
from levit_batch.pixels.preprocess import Preprocessor
from tests.support.images import CHINA, FLOWER, encode

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


@pytest.mark.parametrize("fields", [{}, {"resample": 2}, {"size": 100, "crop_size": 90}, {"size": 30, "crop_size": 33}])
def test_pixels_are_those_of_the_image_processor(fields):
    """And so, by test_processor.py, those of transformers."""
    sizes = np.random.default_rng(8).integers(1, 420, (30, 2)).tolist() + [(1, 1), (1, 300), (300, 1), (640, 427)]
    images = [CHINA.resize(size) for size in sizes]
    pixels, errors = Preprocessor(LEVIT | fields)([encode(image, "PNG") for image in images])
    processor = LevitImageProcessor(**LEVIT | fields, do_rescale=False, do_normalize=False)
    assert errors == [None] * len(images)
    np.testing.assert_array_equal(pixels, processor(images, "np").pixel_values.transpose(0, 2, 3, 1))


def test_jpeg_png_and_memoryview_agree(preprocess):
    jpeg = encode(CHINA)
    png = encode(Image.open(io.BytesIO(jpeg)), "PNG")
    pixels, _ = preprocess([jpeg, png, memoryview(jpeg), pa.py_buffer(jpeg), np.frombuffer(jpeg, np.uint8)])
    assert all(np.array_equal(pixels[0], row) for row in pixels[1:])


def test_an_image_does_not_depend_on_its_neighbours(preprocess):
    images = [encode(CHINA), encode(FLOWER), encode(CHINA.resize((50, 400))), b"", encode(FLOWER.convert("L"))]
    together, _ = preprocess(images)
    for image, row in zip(images, together, strict=True):
        assert np.array_equal(preprocess([image])[0][0], row)


@pytest.mark.parametrize("edges", [(3000, 1), (1, 3000), (65_000, 2)])
def test_a_thread_of_pixels_is_labelled_by_its_middle(edges):
    """3000 x 1 pixels become 768,000 x 256 when the shorter edge is scaled to 256: the crop sees one pixel of them."""
    image = Image.new("RGB", edges, "white")
    middle = [edge // 2 for edge in edges]
    image.paste("red", [middle[0] - 20, middle[1] - 20, middle[0] + 20, middle[1] + 20])
    preprocess = Preprocessor(LEVIT, mode="exact", max_pixels=1_000_000, timeout=60)
    pixels, errors = preprocess([encode(image, "PNG")])
    assert errors == [None] and (pixels[0] == (255, 0, 0)).all()


def test_it_pickles(preprocess):
    copy = pickle.loads(pickle.dumps(preprocess))
    assert np.array_equal(copy([encode(CHINA)])[0], preprocess([encode(CHINA)])[0])


def test_no_images(preprocess):
    pixels, errors = preprocess([])
    assert pixels.shape == (0, 224, 224, 3) and errors == []


def test_fixed_size_and_no_resize():
    assert Preprocessor(LEVIT | {"size": {"height": 64, "width": 48}, "do_center_crop": False}).size == (64, 48)
    pixels, _ = Preprocessor(LEVIT | {"do_resize": False, "crop_size": [300, 200]})([encode(CHINA, "PNG")])
    assert np.array_equal(pixels[0], np.asarray(CHINA)[63:363, 220:420])


WRONG = [
    ({"do_center_crop": False}, "different sizes"),
    ({"do_center_crop": False, "do_resize": False}, "different sizes"),
    ({"resample": 9}, "resample is 9"),
    ({"crop_size": {"height": 224}}, "crop_size"),
    ({"crop_size": 0}, "crop_size"),
    ({"size": {"longest_edge": 224}}, "size is"),
]


@pytest.mark.parametrize("fields, message", WRONG)
def test_a_processor_that_cannot_feed_a_levit_is_refused_at_once(fields, message):
    with pytest.raises(CheckpointError, match=message):
        Preprocessor(LEVIT | fields)


def test_fast_is_close_to_exact_and_equal_where_it_gains_nothing():
    """Close everywhere: a crop that is one pixel off would differ by 10 levels and more."""
    for size in [(1600, 1070), (1155, 1733), (3073, 2222)]:
        large = [encode(image.resize(size, Image.Resampling.LANCZOS)) for image in (CHINA, FLOWER)]
        exact, fast = (Preprocessor(LEVIT, mode)(large)[0].astype(int) for mode in ("exact", "fast"))
        assert 0 < np.abs(exact - fast).mean() < 1
    exact, fast = (Preprocessor(LEVIT, mode)([encode(CHINA)])[0] for mode in ("exact", "fast"))
    assert np.array_equal(exact, fast)
