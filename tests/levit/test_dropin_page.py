"""Every argument, default and attribute of transformers' LeViT page, and no difference that our table does not name."""

import copy
import dataclasses
import inspect
import re

import numpy as np
import pytest
import torch
import transformers
from transformers.models.levit.image_processing_pil_levit import LevitImageProcessorPil

import levit_batch
from levit_batch.levit.checkpoint_files import Where
from levit_batch.levit.outputs import BackboneOutput, ClassifierOutput, TeacherOutput
from levit_batch.levit.processor import FIELDS, OPTIONS
from tests.support import ROOT
from tests.support.images import CHINA
from tests.support.models import shared_model
from tests.support.twins import CLASSES, PIXELS, pair

pytestmark = pytest.mark.usefixtures("one_thread")
TABLE = (ROOT / "levit_batch/levit/README.md").read_text().split("## In place of transformers")[1].split("\n## ")[0]
NAMED = {name for code in re.findall(r"`([^`]+)`", TABLE) for name in re.findall(r"\w+", code)}
METHODS = {
    **dict.fromkeys(CLASSES, ["__init__", "forward", "from_pretrained", "save_pretrained", "push_to_hub"]),
    "LevitConfig": ["from_pretrained", "save_pretrained", "from_dict", "from_json_file", "to_dict", "to_diff_dict",
                    "to_json_string", "to_json_file"],
    "LevitImageProcessor": ["__init__", "__call__", "preprocess", "from_pretrained", "save_pretrained", "from_dict",
                            "from_json_file", "to_dict", "to_json_string", "to_json_file"],
}  # fmt: skip
WHERE = {field.name for field in dataclasses.fields(Where)}
CAUGHT = {"from_pretrained": WHERE | {"kwargs"}, "save_pretrained": {"token"}}
CAUGHT |= dict.fromkeys(["__init__", "preprocess", "from_dict"], {"kwargs"})


def theirs(name):
    return LevitImageProcessorPil if name == "LevitImageProcessor" else getattr(transformers, name)


@pytest.mark.parametrize("name", METHODS)
def test_every_parameter_is_there_or_named(name):
    for method in METHODS[name]:
        ours = inspect.signature(getattr(getattr(levit_batch, name), method)).parameters
        expected = inspect.signature(getattr(theirs(name), method)).parameters
        missing = expected.keys() - ours.keys() - CAUGHT.get(method, set())
        assert missing <= NAMED, (method, missing - NAMED)
        for parameter in expected.keys() & ours.keys() - {"self"}:
            same = ours[parameter].default == expected[parameter].default
            assert same or parameter in NAMED, (method, parameter)


def test_every_field_of_the_configuration_has_the_same_default_or_is_named():
    ours, other = levit_batch.LevitConfig(), transformers.LevitConfig()
    for field in [*dataclasses.fields(transformers.LevitConfig), *other.to_dict()]:
        name = getattr(field, "name", field).lstrip("_")
        same = hasattr(ours, name) and getattr(ours, name) == getattr(other, name)
        assert same or name in NAMED or [*map(list, ours.down_ops)] == getattr(other, name), name


def test_every_argument_of_the_processor_is_there():
    assert set(LevitImageProcessorPil.valid_kwargs.__annotations__) <= FIELDS | OPTIONS.keys()


def test_every_output_has_the_same_fields_in_the_same_order_or_they_are_named():
    expected = [
        (BackboneOutput, transformers.modeling_outputs.BaseModelOutputWithPoolingAndNoAttention),
        (ClassifierOutput, transformers.modeling_outputs.ImageClassifierOutputWithNoAttention),
        (TeacherOutput, transformers.models.levit.modeling_levit.LevitForImageClassificationWithTeacherOutput),
    ]
    for ours, other in expected:
        own, fields = ([field.name for field in dataclasses.fields(kind)] for kind in (ours, other))
        assert [name for name in own if name in fields] == fields
        assert set(own) - set(fields) <= NAMED


def test_what_the_table_says_is_refused_by_name_is(tmp_path):
    shared_model(heads=1).save_pretrained(tmp_path)
    row = next(line for line in TABLE.splitlines() if line.startswith("| options"))
    loading, saving = (re.findall(r"`(\w+)`", cell) for cell in row.split("|")[2].split(";")[:2])
    assert len(loading) > 5 and len(saving) > 3
    for name in loading:
        with pytest.raises(TypeError, match=name):
            levit_batch.LevitModel.from_pretrained(tmp_path, **{name: True})
    for name in saving:
        with pytest.raises(TypeError, match=name):
            shared_model(heads=1).save_pretrained(tmp_path / "new", **{name: True})


def test_better_here_biases_are_never_stale():
    """transformers keeps the gathered attention biases of an evaluated model beside its parameters."""
    changed = {}
    for model in (models := pair("LevitForImageClassification")):
        before = model(PIXELS).logits
        try:
            copy.deepcopy(model)
            model.double()(PIXELS.double()), model.float()
            changed[model] = True
        except RuntimeError:
            changed[model] = False
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("attention_biases"):
                    parameter.add_(torch.linspace(0, 3, parameter.numel()).view_as(parameter))
            changed[model] = changed[model], not model.float()(PIXELS).logits.equal(before)
    assert [changed[model] for model in models] == [(True, True), (False, False)]


@torch.no_grad()
def test_better_here_a_batch_may_be_empty():
    ours, other = pair("LevitForImageClassification")
    assert ours(PIXELS[:0]).logits.shape == (0, 7)
    with pytest.raises(RuntimeError):
        other(PIXELS[:0])


def test_better_here_images_of_every_colour():
    for mode in ("L", "CMYK"):
        assert levit_batch.LevitImageProcessor()(CHINA.convert(mode), return_tensors="np").pixel_values.shape == (1, 3, 224, 224)
        with pytest.raises(ValueError):
            LevitImageProcessorPil()(CHINA.convert(mode), return_tensors="np")


def test_better_here_a_configuration_that_cannot_work_is_told_when_it_is_made():
    for values in ({"image_size": 230}, {"depths": [4, 4]}, {"stride": 1}):
        transformers.LevitConfig(**values)
        with pytest.raises(levit_batch.levit.config.CheckpointError):
            levit_batch.LevitConfig(**values)


def test_on_purpose_alpha_is_laid_over_white():
    clear = np.zeros((8, 8, 4), np.uint8)
    raw = {"do_resize": False, "do_center_crop": False, "do_rescale": False, "do_normalize": False, "return_tensors": "np"}
    assert levit_batch.LevitImageProcessor()(clear, **raw).pixel_values.tolist() == np.full((1, 3, 8, 8), 255).tolist()
    assert LevitImageProcessorPil()(clear, **raw)["pixel_values"].shape == (1, 4, 8, 8)


def test_on_purpose_unknown_keywords_of_a_call_are_refused():
    ours, other = pair("LevitForImageClassificationWithTeacher")
    assert "loss" not in other(PIXELS, labels=torch.tensor([0, 1, 2]), foo=1)
    with pytest.raises(TypeError, match="foo"):
        ours(PIXELS, foo=1)
    with pytest.raises(ValueError, match="both"):
        ours(PIXELS, labels=torch.tensor([0, 1, 2]))
