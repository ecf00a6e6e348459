"""LevitImageProcessor equals transformers' two classes, and works where they raise."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.levit.image_processing_pil_levit import LevitImageProcessorPil

from levit_batch import LevitFeatureExtractor, LevitImageProcessor
from levit_batch.errors import CheckpointError
from levit_batch.pixels.resize import TORCH_MODES
from tests import support
from tests.golden.processor_cases import CASES, case_image
from tests.support.images import CHINA, FLOWER

GOLDEN = json.loads((support.GOLDEN / "processor.json").read_text())
SIZES = [(1, 1), (1, 37), (37, 1), (2, 300), (300, 2), (224, 224), (256, 256), (255, 257), (375, 500), (500, 375)]


def photo(height: int, width: int, seed: int = 0) -> Image.Image:
    """A real photograph, a window of it or one stretched to a size."""
    return (CHINA, FLOWER)[seed % 2].resize((width, height), Image.Resampling.NEAREST)


def sizes(count: int, seed: int) -> list[tuple[int, int]]:
    return [tuple(map(int, edges)) for edges in np.random.default_rng(seed).integers(1, 420, (count, 2))]


def assert_equals_pillow(images, **fields):
    ours = LevitImageProcessor(backend="pil", **fields)(images, return_tensors="np")["pixel_values"]
    theirs = LevitImageProcessorPil(**fields)(images, return_tensors="np")["pixel_values"]
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("height, width", SIZES + sizes(150, seed=1))
def test_pillow_backend_is_bit_equal_for_all_sizes(height, width):
    assert_equals_pillow(photo(height, width, seed=height))


FIELDS = [
    {"size": {"shortest_edge": 30}, "crop_size": {"height": 31, "width": 47}},  # crop larger than the image: padding
    {"size": {"height": 20, "width": 50}, "crop_size": {"height": 33, "width": 33}},
    {"size": 100, "crop_size": 77},
    {"size": {"height": 64, "width": 48}, "do_center_crop": False},
    {"do_resize": False, "crop_size": 150},
    {"do_rescale": False},
    {"do_normalize": False},
    {"do_rescale": False, "do_normalize": False},
    {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [0.5, 0.6, 0.7]},
    *[{"resample": filter.value} for filter in Image.Resampling],
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
def test_pillow_backend_is_bit_equal_for_all_fields(fields):
    assert_equals_pillow([photo(*size, seed) for seed, size in enumerate(sizes(8, seed=2))], **fields)


@pytest.mark.parametrize("kind", ["uint8", "whole", "fractions", "first", "tensor"])
def test_pillow_backend_is_bit_equal_for_arrays(kind):
    pixels = np.asarray(photo(180, 240))
    array = {
        "uint8": pixels,
        "whole": pixels.astype(np.float32),
        "fractions": (pixels / 255).astype(np.float32),
        "first": pixels.transpose(2, 0, 1),
        "tensor": torch.from_numpy(pixels.transpose(2, 0, 1).copy()),
    }[kind]
    assert_equals_pillow(array)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_torch_backend_is_bit_equal_to_transformers(case):
    """`golden/make_processor.py` ran transformers' LevitImageProcessor where torchvision is installed."""
    image, fields = case_image(case), case["fields"]
    if fields.get("resample") == Image.Resampling.LANCZOS and Image.Resampling.LANCZOS not in TORCH_MODES:
        pytest.skip("this torch has no Lanczos, and Pillow's differs by a level or two")
    values = LevitImageProcessor(**fields)(image, "np", "channels_last").pixel_values
    golden = GOLDEN[case["name"]]
    assert [list(values.shape), str(values.dtype)] == golden["form"]
    assert values[0].flatten()[:: golden["stride"]].tolist() == golden["sample"]
    assert hashlib.sha256(values.tobytes()).hexdigest() == golden["sha256"]


def test_the_backends_differ_by_at_most_two_levels_and_do_differ():
    raw = {"do_rescale": False, "do_normalize": False, "return_tensors": "np"}
    both = [LevitImageProcessor(backend)(CHINA, **raw).pixel_values.astype(int) for backend in ("torch", "pil")]
    assert 0 < np.abs(both[0] - both[1]).max() <= 2


@pytest.mark.parametrize("mode", ["LA", "P", "RGBA", "CMYK", "1", "YCbCr", "HSV"])
@pytest.mark.parametrize("backend", ["torch", "pil"])
def test_every_colour_mode_works(mode, backend):
    values = LevitImageProcessor(backend)(CHINA.convert(mode), return_tensors="pt").pixel_values
    expected = LevitImageProcessor(backend)(CHINA, return_tensors="pt").pixel_values
    similar = torch.corrcoef(torch.stack([values.flatten(), expected.flatten()]))[0, 1]
    assert values.shape == (1, 3, 224, 224) and similar > 0.6


@pytest.mark.parametrize("mode", ["L", "I;16", "I", "F"])
def test_every_depth_of_grey_is_the_same_grey(mode):
    grey = CHINA.convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    assert deep.mode == mode
    processor = LevitImageProcessor()
    assert torch.equal(processor(deep).pixel_values[0], processor(grey.convert("RGB")).pixel_values[0])


def test_opaque_modes_give_the_pixels_of_rgb():
    processor = LevitImageProcessor()
    expected = processor(CHINA, return_tensors="pt").pixel_values
    for same in (CHINA.convert("RGBA"), np.asarray(CHINA.convert("RGBA")), np.asarray(CHINA), [CHINA]):
        assert torch.equal(processor(same, return_tensors="pt").pixel_values, expected)


def test_an_image_is_turned_upright():
    turned = CHINA.transpose(Image.Transpose.ROTATE_90)
    turned.getexif()[0x0112] = 6
    processor = LevitImageProcessor()
    assert torch.equal(processor(turned).pixel_values[0], processor(CHINA).pixel_values[0])


@pytest.mark.parametrize("shape", [(50, 60), (50, 60, 1), (1, 50, 60), (50, 60, 2), (50, 60, 4), (4, 50, 60)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int64, np.uint16, bool])
def test_arrays_of_every_shape_and_type(shape, dtype):
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    assert LevitImageProcessor()(array, return_tensors="np").pixel_values.shape == (1, 3, 224, 224)


def test_transparency_in_arrays_is_laid_over_white():
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4, 3] = 255  # left black, right transparent
    raw = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False}
    for array, white in ((pixels, 255), ((pixels / 255).astype(np.float32), 1)):
        (values,) = LevitImageProcessor(**raw)(array).pixel_values
        assert (values[:, :, :4] == 0).all() and (values[:, :, 4:] == white).all()


def test_lists_batches_and_return_types():
    processor = LevitImageProcessor()
    batch = np.stack([np.asarray(CHINA), np.asarray(FLOWER)])
    listed = processor([CHINA, FLOWER], return_tensors="pt")
    assert torch.equal(listed["pixel_values"], processor(batch, return_tensors="pt").pixel_values)
    assert torch.equal(listed.to(torch.float16).pixel_values, listed.pixel_values.half())
    assert isinstance(processor(CHINA, return_tensors="np").pixel_values, np.ndarray)
    assert [value.shape for value in processor([CHINA, FLOWER]).pixel_values] == [(3, 224, 224)] * 2


def test_fields_can_be_overridden_for_one_call():
    processor = LevitImageProcessor()
    assert processor.preprocess(CHINA, crop_size=96, return_tensors="pt").pixel_values.shape[-1] == 96
    assert processor.crop_size == {"height": 224, "width": 224}


def test_uncropped_images_are_listed_but_cannot_be_stacked():
    processor = LevitImageProcessor(do_center_crop=False)
    first, second = processor([photo(100, 200), photo(200, 100)]).pixel_values
    assert first.shape == (3, 256, 512) and second.shape == (3, 512, 256)
    with pytest.raises(ValueError, match="differ in size"):
        processor([photo(100, 200), photo(200, 100)], return_tensors="pt")


@pytest.mark.parametrize("image", ["path.jpg", np.zeros((2, 2, 7)), np.zeros((3,)), np.full((4, 4), 300), [[1]]])
def test_what_is_no_image_is_refused(image):
    with pytest.raises((TypeError, ValueError)):
        LevitImageProcessor()(image)


def test_saved_by_either_and_loaded_by_either(tmp_path):
    fields = {
        "size": {"shortest_edge": 64},
        "crop_size": {"height": 60, "width": 60},
        "resample": 2,
        "do_rescale": False,
    }
    LevitImageProcessor(**fields).save_pretrained(tmp_path / "ours")
    LevitImageProcessorPil(**fields).save_pretrained(tmp_path / "theirs")
    ours, theirs = ((tmp_path / name / "preprocessor_config.json").read_text() for name in ("ours", "theirs"))
    assert json.loads(ours) == json.loads(theirs)
    loaded = LevitFeatureExtractor.from_pretrained(str(tmp_path / "theirs"), backend="pil")
    reference = LevitImageProcessorPil.from_pretrained(tmp_path / "ours")
    assert loaded.resample == 2 and loaded.do_rescale is False
    np.testing.assert_array_equal(loaded(CHINA).pixel_values[0], reference(CHINA)["pixel_values"][0])
    assert LevitImageProcessor.from_dict(loaded.to_dict()).to_dict() == loaded.to_dict()


def test_a_folder_without_preprocessor_config(tmp_path):
    with pytest.raises(CheckpointError, match="preprocessor_config"):
        LevitImageProcessor.from_pretrained(str(tmp_path))


def test_timm_says_its_preprocessing_in_config_json(tmp_path):
    timm = {"architecture": "levit_128s", "pretrained_cfg": {"input_size": [3, 224, 224], "crop_pct": 0.9}}
    (tmp_path / "config.json").write_text(json.dumps(timm))
    processor = LevitImageProcessor.from_pretrained(str(tmp_path))
    assert processor.preprocessing.resized(500, 400) == (310, 248)


def test_unknown_fields_are_refused():
    with pytest.raises(TypeError, match="do_flip"):
        LevitImageProcessor(do_flip=True)
