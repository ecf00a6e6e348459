"""The processors called as transformers' own tests and users call theirs: the same call on both, the same pixels."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.levit.image_processing_pil_levit import LevitImageProcessorPil

from levit_batch import LevitImageProcessor
from levit_batch.errors import CheckpointError
from tests.support.images import CHINA, FLOWER

IMAGES = [CHINA.resize((60, 50)), FLOWER.resize((45, 70))]
ARRAY = np.asarray(IMAGES[0])


def backends():
    """(ours, transformers'): Pillow's, and the torch-backed ones where torchvision is installed."""
    yield lambda **fields: LevitImageProcessor("pil", **fields), LevitImageProcessorPil
    try:
        from transformers.models.levit.image_processing_levit import LevitImageProcessor as Theirs
    except ImportError:
        return
    yield LevitImageProcessor, Theirs


both = pytest.mark.parametrize("ours, theirs", [*backends()][::-1])


def assert_same(one, other):
    one, other = one["pixel_values"], other["pixel_values"]
    assert type(one) is type(other) and len(one) == len(other)
    for mine, another in zip(one, other, strict=True):
        assert type(mine) is type(another) and mine.dtype == another.dtype
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(another))


SETTINGS = [
    {"size": {"shortest_edge": 30}}, {"size": 30}, {"size": {"height": 21, "width": 33}}, {"size": [21, 33]},
    {"crop_size": 20}, {"crop_size": {"height": 20, "width": 22}}, {"crop_size": (20, 22)},
    {"resample": 0}, {"resample": Image.Resampling.BILINEAR},
    {"do_resize": False}, {"do_center_crop": False, "size": (9, 9)}, {"do_rescale": False}, {"do_normalize": False},
    {"do_resize": None}, {"do_center_crop": None, "size": (9, 9)}, {"do_rescale": None}, {"do_normalize": None},
    {"rescale_factor": 0.01}, {"image_mean": [0.1, 0.2, 0.3]}, {"image_mean": (0.1, 0.2, 0.3)}, {"image_std": [0.1, 0.2, 0.3]},
    {"image_mean": 0.5, "image_std": 0.25},
    {"do_pad": True}, {"do_pad": True, "pad_size": 300}, {"do_pad": True, "pad_size": {"height": 230, "width": 226}},
    {"do_pad": True, "do_center_crop": False}, {"pad_size": 300},
    {"do_convert_rgb": True}, {"do_convert_rgb": False}, {"data_format": "channels_first"}, {"device": "cpu"},
    {"default_to_square": True, "size": 24, "do_center_crop": False}, {"disable_grouping": True}, {"disable_grouping": False},
    {"image_seq_length": 3},
]  # fmt: skip


@both
@pytest.mark.parametrize("fields", SETTINGS, ids=str)
def test_every_field_does_the_same_given_set_or_called_with(ours, theirs, fields):
    stacked = None if fields.get("do_center_crop") is False and "size" not in fields and "do_pad" not in fields else "np"
    called, expected = ours(), theirs()
    assert_same(called(IMAGES, return_tensors=stacked, **fields), expected(IMAGES, return_tensors=stacked, **fields))
    assert_same(called(IMAGES), expected(IMAGES))  # for that call alone
    given, set_later = ours(**fields), [ours(), theirs()]
    assert_same(given(IMAGES), theirs(**fields)(IMAGES))
    if "default_to_square" not in fields:  # in both it matters where a size is given
        for processor in set_later:
            for name, value in fields.items():
                setattr(processor, name, value)
        assert_same(set_later[0](IMAGES), set_later[1](IMAGES))


def test_what_is_set_is_what_is_computed_and_written(tmp_path):
    processor = LevitImageProcessor()
    processor.size, processor.crop_size, processor.resample = {"shortest_edge": 28}, {"height": 24, "width": 20}, 0
    values = processor(IMAGES, return_tensors="np").pixel_values
    processor.save_pretrained(tmp_path)
    again = LevitImageProcessor.from_pretrained(tmp_path)
    assert values.shape == (2, 3, 24, 20) and again.resample == 0
    np.testing.assert_array_equal(again(IMAGES, return_tensors="np").pixel_values, values)
    processor.do_resize = None
    assert processor.to_dict()["do_resize"] is False


@both
def test_defaults_and_attributes_are_the_same(ours, theirs):
    one, other = ours(), theirs()
    for name in type(other).valid_kwargs.__annotations__:
        expected = getattr(other, name)
        expected = dict(expected) if name in ("size", "crop_size") else [*expected] if name.startswith("image_m") else expected
        assert getattr(one, name) == ([*expected] if name == "image_std" else expected), name


@both
@pytest.mark.parametrize("tensors", [None, "np", "pt"])
def test_every_kind_of_input_and_return(ours, theirs, tensors):
    tensor = torch.from_numpy(ARRAY.copy()).permute(2, 0, 1)
    inputs = [
        *(IMAGES[0], IMAGES, tuple(IMAGES), [IMAGES, IMAGES], ARRAY, [ARRAY, ARRAY], np.stack([ARRAY, ARRAY])),
        *(tensor, [tensor, tensor], torch.stack([tensor, tensor]), tensor.float() / 255, ARRAY.astype(np.float32) / 255),
    ]
    for images in inputs:
        for call in (ours(), ours().preprocess):
            assert_same(call(images, return_tensors=tensors), theirs()(images, return_tensors=tensors))
    shape = {"input_data_format": "channels_last", "return_tensors": tensors}
    assert_same(ours()(ARRAY[:3], **shape), theirs()(ARRAY[:3], **shape))
    assert_same(ours(input_data_format="channels_last")(ARRAY[:3]), theirs(input_data_format="channels_last")(ARRAY[:3]))


@both
def test_what_comes_back_can_be_added_to_moved_and_cast(ours, theirs):
    for processor in (ours(), theirs()):
        processed = processor(IMAGES, return_tensors="pt")
        processed.update({"labels": torch.tensor([1, 2]), "names": ["a", "b"]})
        cast = processed.to("cpu", torch.bfloat16)
        assert cast.pixel_values.dtype == torch.bfloat16 and cast.labels.dtype == torch.int64 and cast["names"] == ["a", "b"]
        assert {**cast}.keys() == {"pixel_values", "labels", "names"}
        for wrong in (lambda p: p.nothing, lambda p: p.to(torch.bfloat16, "cpu")):
            with pytest.raises((AttributeError, TypeError)):
                wrong(processed)


@both
def test_what_both_refuse(ours, theirs):
    calls = [
        *([images, {"return_tensors": "np"}] for images in ([], None, 5, {"a": 1}, object(), [None], "no.jpg", np.zeros(3))),
        *([np.zeros((0, 20, 20, 3), np.uint8), {"return_tensors": "np"}], [[np.zeros((0, 5, 3), np.uint8)], {}]),
        *([IMAGES, {"foo": 1}], [IMAGES, {"return_tensors": "tf"}], [IMAGES, {"size": None}], [IMAGES, {"crop_size": None}]),
        *([IMAGES, {"resample": 9}], [IMAGES, {"image_mean": [0.1, 0.2]}], [IMAGES, {"do_pad": True, "pad_size": 100}]),
        *([IMAGES, {"size": {"max_height": 3, "max_width": 4}}], [IMAGES, {"crop_size": {"shortest_edge": 3}}]),
        *([IMAGES, {"do_center_crop": False, "return_tensors": "np"}], [ARRAY, {"input_data_format": "sideways"}]),
    ]  # fmt: skip
    for images, options in calls:
        with pytest.raises((ValueError, TypeError, CheckpointError)):
            ours()(images, **options)
        with pytest.raises(Exception):  # noqa: B017  # theirs are of every kind
            theirs()(images, **options)


@pytest.mark.parametrize(
    "images, message",
    [([], "the list is empty"), ("photo.jpg", "PIL.Image.open.*'photo.jpg'"), ([None], "not NoneType"),
     (np.zeros((0, 5, 3), np.uint8), "at least one pixel")],
)  # fmt: skip
def test_what_is_no_image_is_told_in_one_line(images, message):
    with pytest.raises((ValueError, TypeError), match=message):
        LevitImageProcessor()(images, return_tensors="pt")


def test_channels_last_is_honoured():
    """transformers 5 takes `data_format` and returns channels first."""
    first = LevitImageProcessor()(IMAGES, return_tensors="np").pixel_values
    for backend in ("torch", "pil"):
        for tensors in ("np", "pt", None):
            values = LevitImageProcessor(backend)(IMAGES, return_tensors=tensors, data_format="channels_last").pixel_values
            assert values[0].shape == (224, 224, 3)
    last = LevitImageProcessor(data_format="channels_last")(IMAGES, return_tensors="np").pixel_values
    assert np.array_equal(last, first.transpose(0, 2, 3, 1))
    with pytest.raises(ValueError, match="data_format"):
        LevitImageProcessor()(IMAGES, data_format="sideways")


def test_tensors_go_to_the_device():
    processor = LevitImageProcessor()
    assert processor(IMAGES, return_tensors="pt", device="meta").pixel_values.is_meta
    assert all(value.is_meta for value in processor(IMAGES, device=torch.device("meta")).pixel_values)
    with pytest.raises(ValueError, match="cannot be on meta"):
        processor(IMAGES, return_tensors="np", device="meta")


def test_images_that_are_not_rgb_are_refused_where_they_may_not_be_converted():
    for image in (CHINA.convert("L"), CHINA.convert("RGBA"), ARRAY[:, :, 0], np.dstack([ARRAY, ARRAY[:, :, :1]])):
        assert LevitImageProcessor()(image, return_tensors="np").pixel_values.shape == (1, 3, 224, 224)
        with pytest.raises(ValueError, match="do_convert_rgb is False"):
            LevitImageProcessor(do_convert_rgb=False)(image)


@both
def test_files_of_either_are_read_by_either(ours, theirs, tmp_path):
    fields = {"size": {"shortest_edge": 30}, "crop_size": {"height": 24, "width": 26}, "do_convert_rgb": True, "do_pad": True}
    fields["pad_size"] = {"height": 30, "width": 30}
    files = ours(**fields).save_pretrained(tmp_path / "ours"), theirs(**fields).save_pretrained(tmp_path / "theirs")
    assert files[0] == [name.replace("theirs", "ours") for name in files[1]]
    written, expected = (json.loads((tmp_path / name / "preprocessor_config.json").read_text()) for name in ("ours", "theirs"))
    assert written == expected
    read = LevitImageProcessor.from_pretrained(tmp_path / "theirs", backend="pil" if "Pil" in theirs.__name__ else "torch")
    assert_same(read(IMAGES), theirs.from_pretrained(tmp_path / "ours")(IMAGES))
    ours(**fields).to_json_file(tmp_path / "file.json")
    assert theirs.from_json_file(tmp_path / "file.json").pad_size["height"] == 30
    assert LevitImageProcessor.from_json_file(tmp_path / "file.json").to_dict() == ours(**fields).to_dict()
    assert json.loads(ours(**fields).to_json_string()) == ours(**fields).to_dict()
    changed = LevitImageProcessor.from_pretrained(tmp_path, subfolder="ours", crop_size=20)
    assert changed.crop_size == {"height": 20, "width": 20} and changed.do_pad is True
    assert dict(theirs.from_pretrained(tmp_path / "ours", crop_size=20).crop_size) == changed.crop_size


def test_a_damaged_file_is_our_error(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{")
    for place in (tmp_path, tmp_path / "preprocessor_config.json"):
        with pytest.raises(CheckpointError, match="not JSON"):
            LevitImageProcessor.from_pretrained(place)
    with pytest.raises(CheckpointError, match="hub id"):
        LevitImageProcessor.from_pretrained(None)
