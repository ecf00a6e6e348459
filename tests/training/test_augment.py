"""Random crops and mirror images."""

import numpy as np
import pytest

from levit_batch.errors import ConfigError
from levit_batch.job.load import validate
from levit_batch.pixels.preprocessing import Preprocessing
from levit_batch.pixels.resize import resize
from levit_batch.training.augment import augment, random_box
from levit_batch.training.config import AugmentConfig, FinetuneConfig

WHOLE = Preprocessing.read({"size": (24, 24), "do_center_crop": False})


def ramp(height: int, width: int) -> np.ndarray:
    """Pixels that tell where they are: red says the column, green the row."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.linspace(0, 255, width)[None, :]
    image[..., 1] = np.linspace(0, 255, height)[:, None]
    return image


@pytest.mark.parametrize("shape", [(100, 100), (60, 200), (333, 50)])
def test_boxes_lie_inside_and_keep_the_configured_area_and_ratio(shape):
    config = AugmentConfig(crop_scale=(0.2, 0.6), crop_ratio=(0.8, 1.25))
    rng = np.random.default_rng(0)
    for _ in range(300):
        top, left, height, width = random_box(*shape, config, rng)
        assert top >= 0 and left >= 0 and top + height <= shape[0] and left + width <= shape[1]
        assert 0.75 <= width / height <= 1.32  # rounding to whole pixels moves the limits a little
        assert height * width <= 0.62 * shape[0] * shape[1]
        if shape == (100, 100):
            assert height * width >= 0.19 * 100 * 100


def test_boxes_reach_all_parts_of_the_image():
    rng = np.random.default_rng(0)
    boxes = [random_box(100, 100, AugmentConfig(crop_scale=(0.2, 0.3)), rng) for _ in range(400)]
    tops, lefts = (np.array([box[i] for box in boxes]) for i in (0, 1))
    assert tops.min() < 5 and lefts.min() < 5 and tops.max() > 45 and lefts.max() > 45
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.2


def test_image_too_thin_for_any_box_gives_its_middle():
    assert random_box(10, 1000, AugmentConfig(crop_scale=(0.9, 1.0)), np.random.default_rng(0)) == (0, 493, 10, 13)
    assert random_box(1, 1, AugmentConfig(), np.random.default_rng(0)) == (0, 0, 1, 1)


def test_crop_is_resized_to_what_the_model_takes():
    image, config = ramp(80, 120), AugmentConfig(crop_scale=(0.3, 0.5), flip=0)
    got = augment(image, config, WHOLE, np.random.default_rng(5))
    top, left, height, width = random_box(80, 120, config, np.random.default_rng(5))
    expected = resize(np.ascontiguousarray(image[top : top + height, left : left + width]), (24, 24), WHOLE.resample)
    np.testing.assert_array_equal(got, expected)


def test_without_crop_an_image_is_fitted_as_in_labelling():
    geometry = Preprocessing.read({"size": 28, "crop_size": 24})  # the shorter edge becomes 32
    got = augment(ramp(64, 64), AugmentConfig(crop_scale=None, flip=0), geometry, np.random.default_rng(0))
    np.testing.assert_array_equal(got, resize(ramp(64, 64), (32, 32), geometry.resample)[4:28, 4:28])


@pytest.mark.parametrize(("flip", "share"), [(0, 0), (1, 1), (0.5, 0.5)])
def test_mirror_images_are_as_frequent_as_asked(flip, share):
    config = AugmentConfig(crop_scale=None, flip=flip)
    images = [augment(ramp(24, 24), config, WHOLE, np.random.default_rng(i)) for i in range(200)]
    mirrored = np.mean([image[0, 0, 0] > image[0, -1, 0] for image in images])
    assert abs(mirrored - share) < (0.12 if 0 < share < 1 else 1e-9)
    assert all(image[0, 0, 1] < image[-1, 0, 1] for image in images)  # never upside down


@pytest.mark.parametrize("section", [{"crop_scale": [0.5, 0.2]}, {"crop_scale": [0.0, 0.5]}, {"crop_ratio": [2, 1]}])
def test_ranges_the_wrong_way_round_are_refused(section):
    values = {"source": {"path": "x", "target_column": "y"}, "model": {"variant": "128S"}, "output": {"path": "o"}}
    with pytest.raises(ConfigError, match="a smaller and a larger number"):
        validate(values | {"augment": section}, "job.yaml", FinetuneConfig)
