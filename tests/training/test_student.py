"""The student takes over what fits from where it starts, and its teacher answers in the same classes."""

import dataclasses

import numpy as np
import pytest
import torch

from levit_batch.errors import CheckpointError, ConfigError
from levit_batch.job.load import validate
from levit_batch.levit.blocks import Residual
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.levit.model import LevitForImageClassification, LevitForImageClassificationWithTeacher
from levit_batch.pixels.preprocess import Preprocessor
from levit_batch.training.config import FinetuneConfig, StudentConfig
from levit_batch.training.student import Normalise, Teacher, build_student, load_teacher, scratch_config
from tests.support.models import TINY, photographs, signal_model
from tests.support.trainings import TINY_SHAPE

NAMES = [f"LABEL_{i}" for i in range(7)]
OTHERS = ["cat", "dog", "cow"]


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    folder = tmp_path_factory.mktemp("start")
    signal_model(TINY).save_pretrained(folder)
    return load_checkpoint(str(folder))


def config(teacher: bool = False, model: dict | None = None, **train) -> FinetuneConfig:
    source = {"path": "x", "target_column": "label"} | ({"teacher_column": "said"} if teacher else {})
    values = {"source": source, "model": model or {"checkpoint": "start"}, "train": train, "output": {"path": "out"}}
    return validate(values, "test.yaml", FinetuneConfig)


def equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_same_classes_keep_both_heads(start):
    student = build_student(config(teacher=True), start, NAMES)
    assert isinstance(student, LevitForImageClassificationWithTeacher)
    assert equal(student, start.model) and student.processor == start.processor


def test_without_teacher_the_class_head_alone_goes_on(start):
    student = build_student(config(), start, NAMES)
    assert isinstance(student, LevitForImageClassification)
    assert equal(student.levit, start.model.levit) and equal(student.classifier, start.model.classifier)


def test_other_classes_get_fresh_heads_on_the_same_backbone(start):
    student = build_student(config(teacher=True), start, OTHERS)
    assert student.config.class_names == OTHERS and student.classifier.linear.out_features == 3
    assert equal(student.levit, start.model.levit)
    assert student.classifier.linear.weight.std() < 0.03  # as fresh heads are, not one of the start's


def test_one_head_start_gets_a_fresh_second_head(tmp_path):
    signal_model(TINY, heads=1).save_pretrained(tmp_path)
    start = load_checkpoint(str(tmp_path))
    student = build_student(config(teacher=True), start, NAMES)
    assert equal(student.classifier, start.model.classifier)
    assert not equal(student.classifier_distill, start.model.classifier)


def test_fresh_weights_follow_from_the_seed(start):
    heads = [build_student(config(seed=seed), start, OTHERS).classifier for seed in (1, 1, 2)]
    assert equal(heads[0], heads[1]) and not equal(heads[0], heads[2])


def test_frozen_backbone_leaves_only_the_heads_to_learn(start):
    student = build_student(config(teacher=True, freeze="backbone"), start, NAMES)
    learning = {name.split(".")[0] for name, p in student.named_parameters() if p.requires_grad}
    assert learning == {"classifier", "classifier_distill"}


def test_drop_path_reaches_every_branch(start):
    student = build_student(config(drop_path=0.25), start, NAMES)
    assert {m.drop_rate for m in student.modules() if isinstance(m, Residual)} == {0.25}
    pixels = torch.randn(4, 3, 64, 64)
    assert not torch.equal(student.train()(pixels).logits, student(pixels).logits)
    assert torch.equal(student.eval()(pixels).logits, student(pixels).logits)


def test_shape_from_scratch():
    shape = scratch_config(StudentConfig(config=TINY_SHAPE))
    assert shape.hidden_sizes == (16, 24, 32) and [down.num_heads for down in shape.downs()] == [2, 3]
    large = scratch_config(StudentConfig(variant="128S", config={"image_size": 160}))
    assert large.image_size == 160 and large.hidden_sizes == (128, 256, 384)


@pytest.mark.parametrize(
    ("shape", "says"),
    [
        ({"hidden_size": [1]}, "unknown field hidden_size; known: .*hidden_sizes"),
        ({"hidden_sizes": [16, 24]}, "hidden_sizes has 2 entries"),
        ({"image_size": 50}, "not a multiple of patch_size"),
        ({"image_size": "big"}, "model.config"),
        ({"num_channels": 1}, "images have 3"),
    ],
)
def test_shape_that_is_no_levit_is_refused(shape, says):
    with pytest.raises(ConfigError, match=says):
        build_student(config(model={"config": shape}), None, OTHERS)


def test_processor_that_does_not_fit_is_refused(start):
    with pytest.raises(ConfigError, match="model.processor.*the model takes 64"):
        build_student(
            config(model={"checkpoint": "x", "processor": {"crop_size": {"height": 9, "width": 9}}}), start, OTHERS
        )


@pytest.mark.parametrize("model", [{"checkpoint": "x", "variant": "128S"}, {}])
def test_two_starts_or_none_are_refused(model):
    with pytest.raises(ConfigError, match="checkpoint"):
        config(model=model or {"processor": {}})


def test_normalise_is_what_labelling_computes(start):
    from levit_batch.inference.fold import fold

    pixels = torch.from_numpy(photographs(4, 64))
    _, folded = fold(start.model, "average", start.processor)(pixels)
    torch.testing.assert_close(start.model(Normalise(start.processor)(pixels)).logits, folded, rtol=1e-4, atol=1e-4)
    plain = Normalise(start.processor | {"do_rescale": False, "do_normalize": False})(pixels)
    assert torch.equal(plain, pixels.permute(0, 3, 1, 2).float())


def test_teacher_gives_its_own_labels(start):
    pixels = torch.from_numpy(photographs(8, 64))
    expected = start.model(Normalise(start.processor)(pixels)).logits.argmax(1)
    assert torch.equal(Teacher(start, NAMES)(pixels), expected) and len(set(expected.tolist())) > 1


def test_teacher_sees_the_students_view_at_its_own_size(start):
    pixels = photographs(6, 32)
    larger = [Preprocessor(start.processor | {"size": {"height": 64, "width": 64}})([_png(p)])[0][0] for p in pixels]
    wanted = Teacher(start, NAMES)._fit(torch.from_numpy(pixels)).permute(0, 2, 3, 1).int()
    assert (wanted - torch.from_numpy(np.stack(larger)).int()).abs().max() <= 2


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image

    from tests.support.images import encode

    return encode(Image.fromarray(pixels), "PNG")


def test_teacher_of_other_classes_is_refused(start):
    with pytest.raises(ConfigError, match="'LABEL_0' is not 'cat'"):
        Teacher(start, OTHERS)
    with pytest.raises(ConfigError, match="7 classes' is not '8 classes"):
        Teacher(start, [*NAMES, "more"])


def test_config_of_the_start_is_left_alone(start):
    before = dataclasses.asdict(start.config)
    build_student(config(drop_path=0.5), start, OTHERS)
    assert dataclasses.asdict(start.config) == before


def test_a_start_of_another_kind_is_trained_to_choose_a_class(start):
    said = {"problem_type": "multi_label_classification", "return_dict": False, "output_hidden_states": True}
    student = build_student(config(), dataclasses.replace(start, config=start.config.changed(**said)), OTHERS)
    answer = student(torch.zeros(2, 3, 64, 64), labels=torch.tensor([0, 2]))
    expected = torch.nn.functional.cross_entropy(answer.logits, torch.tensor([0, 2]))
    assert answer.loss.equal(expected) and answer.hidden_states is None


def test_a_teacher_that_chooses_no_class_is_refused(tmp_path):
    signal_model(TINY.changed(problem_type="multi_label_classification")).save_pretrained(tmp_path)
    settings = config(teacher=False)
    settings = settings.model_copy(update={"teacher": settings.teacher.model_copy(update={"checkpoint": str(tmp_path)})})
    with pytest.raises(CheckpointError, match="does not choose one of several classes"):
        load_teacher(settings, NAMES)
