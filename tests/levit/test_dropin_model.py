"""The models called as transformers' own tests and users call theirs: the same call on both, the same answer."""

import pickle

import pytest
import torch

from levit_batch.levit.config import LevitConfig
from tests.support.twins import CLASSES, PIXELS, pair

pytestmark = pytest.mark.usefixtures("one_thread")


def assert_same(ours, theirs):
    """Of nested tuples of tensors: the same numbers, to the last bit."""
    if isinstance(theirs, torch.Tensor):
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    else:
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)


def assert_same_output(ours, theirs):
    """Names, order, positions, slices and numbers, of outputs or of tuples."""
    if isinstance(theirs, tuple):
        assert isinstance(ours, tuple)
        return assert_same(ours, theirs)
    assert list(ours) == list(ours.keys()) == list(theirs.keys()) and len(ours) == len(theirs)
    assert_same(ours.to_tuple(), theirs.to_tuple())
    assert_same(ours[1:], theirs[1:])
    for position, name in enumerate(theirs.keys()):
        assert ours[position] is ours[name] is getattr(ours, name) is ours.get(name) and name in ours
    for name in {"loss", "logits", "hidden_states"} & vars(theirs).keys():
        assert (getattr(ours, name) is None) == (getattr(theirs, name) is None)


CALLS = [
    {"output_hidden_states": hidden, "return_dict": mapping} for hidden in (None, True, False) for mapping in (None, True, False)
]


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("fields", [{}, {"output_hidden_states": True, "return_dict": False}], ids=["usual", "configured"])
@torch.no_grad()
def test_every_way_to_call_gives_the_same(name, fields):
    ours, theirs = pair(name, **fields)
    assert_same_output(ours(PIXELS), theirs(PIXELS))
    for call in CALLS:
        assert_same_output(ours(pixel_values=PIXELS, **call), theirs(pixel_values=PIXELS, **call))


@torch.no_grad()
def test_positions_of_the_arguments_are_the_same():
    for name, more in zip(CLASSES, [(True, False), (None, True, False), (True, False)], strict=True):
        ours, theirs = pair(name)
        assert_same_output(ours(PIXELS, *more), theirs(PIXELS, *more))


@torch.no_grad()
def test_what_the_configuration_says_can_change_after_building():
    ours, theirs = pair("LevitForImageClassification")
    for model in (ours, theirs):
        model.config.output_hidden_states = True
    assert_same_output(ours(PIXELS), theirs(PIXELS))
    for model in (ours, theirs):
        model.config.return_dict = False
    assert_same_output(ours(PIXELS), theirs(PIXELS))


LOSSES = {
    "classes": (7, torch.tensor([1, 6, 0]), {}),
    "a column of classes": (7, torch.tensor([[1], [6], [0]]), {}),
    "ignored": (7, torch.tensor([1, -100, 0]), {}),
    "one number": (1, torch.tensor([0.5, -1.0, 2.0]), {}),
    "one number in a column": (1, torch.tensor([[0.5], [-1.0], [2.0]]), {}),
    "several labels": (7, torch.eye(7)[:3], {}),
    "numbers": (7, torch.linspace(-1, 1, 21).view(3, 7), {"problem_type": "regression"}),
    "said classes": (7, torch.tensor([1, 6, 0]), {"problem_type": "single_label_classification"}),
    "said labels": (7, torch.ones(3, 7), {"problem_type": "multi_label_classification"}),
}


@pytest.mark.parametrize("case", LOSSES)
def test_every_kind_of_labels_gives_the_same_loss(case):
    count, labels, fields = LOSSES[case]
    ours, theirs = pair("LevitForImageClassification", num_labels=count, **fields)
    one, other = ours(PIXELS, labels=labels), theirs(PIXELS, labels=labels)
    assert_same_output(one, other)
    assert ours.config.problem_type == theirs.config.problem_type is not None
    one.loss.backward(), other.loss.backward()
    gradients = dict(ours.named_parameters())
    for name, parameter in theirs.named_parameters():
        assert_same(gradients[name].grad, parameter.grad)
    for call in CALLS[1:]:
        assert_same_output(ours(PIXELS, labels, **call), theirs(PIXELS, labels, **call))  # in a tuple, too, the loss is first


def test_problem_types_set_one_after_the_other():
    """As transformers' own test does, one class among them."""
    kinds = [("multi_label_classification", 2, torch.ones(3, 2)), ("single_label_classification", 1, torch.tensor([0, 0, 0])),
             ("regression", 1, torch.ones(3))]  # fmt: skip
    losses = []
    for model in pair("LevitForImageClassification"):
        for kind, count, labels in kinds:
            model.config.problem_type, model.config.num_labels = kind, count
            built = type(model)(model.config).eval()
            built.load_state_dict({n: t[:count] if n.startswith("classifier.l") else t for n, t in model.state_dict().items()})
            losses.append(built(PIXELS, labels=labels).loss)
    assert_same(losses[:3], losses[3:])


NO_LABELS = {
    "too few": torch.tensor([1, 2]),
    "no such class": torch.tensor([1, 2, 7]),
    "whole numbers": torch.ones(3, 7, dtype=torch.int64),
    "too few labels": torch.ones(3, 2),
    "bytes": torch.ones(3, 7, dtype=torch.uint8),
}


def test_labels_that_fit_no_loss_are_refused_by_both():
    for model in pair("LevitForImageClassification"):
        for labels in NO_LABELS.values():
            model.config.problem_type = None
            with pytest.raises((ValueError, IndexError, RuntimeError)):
                model(PIXELS, labels=labels)


@pytest.mark.parametrize("name", CLASSES)
def test_the_same_calls_are_refused_by_both(name):
    calls = [lambda m: m(), lambda m: m(None), lambda m: m(PIXELS[:, :1]), lambda m: m(PIXELS[:, :, :32])]
    for model in pair(name):
        for call in calls:
            with pytest.raises((ValueError, RuntimeError)):
                call(model)


def test_a_size_that_only_happens_to_give_the_same_grid_is_refused_by_ours_alone():
    ours, theirs = pair("LevitModel")
    assert theirs(PIXELS[:, :, :50]).pooler_output.shape == (3, 64)
    with pytest.raises(ValueError, match=r"takes images of \(3, 64, 64\)"):
        ours(PIXELS[:, :, :50])


def test_probabilities_as_labels_are_ours_alone():
    """Mixed images are trained with them; transformers refuses them."""
    ours, theirs = pair("LevitForImageClassification", problem_type="single_label_classification")
    mixed = torch.full((3, 7), 1 / 7)
    assert ours(PIXELS, mixed).loss.isclose(torch.nn.functional.cross_entropy(ours(PIXELS).logits, mixed))
    with pytest.raises((ValueError, RuntimeError)):
        theirs(PIXELS, mixed)
    ours.config.problem_type = "regression"
    with pytest.raises(ValueError, match="label_smoothing"):
        ours(PIXELS, mixed, label_smoothing=0.1)


@pytest.mark.parametrize("channels", [1, 4])
@torch.no_grad()
def test_other_numbers_of_channels(channels):
    ours, theirs = pair("LevitForImageClassification", num_channels=channels)
    pixels = torch.randn(2, channels, 64, 64)
    assert_same_output(ours(pixels), theirs(pixels))


@torch.no_grad()
def test_without_classes_a_classifier_gives_the_features():
    for name in CLASSES[1:]:
        ours, theirs = pair(name, num_labels=0)
        assert_same_output(ours(PIXELS), theirs(PIXELS))
        assert ours(PIXELS).logits.shape == (3, 64)


def test_an_output_is_what_transformers_is():
    """pytree, pickle, `**output`; the fields are the keys for good."""
    for model in pair("LevitForImageClassification"):
        output = model(PIXELS, labels=torch.tensor([0, 1, 2]))
        half = torch.utils._pytree.tree_map(lambda tensor: tensor / 2, output)
        assert type(half) is type(output) and half.logits.equal(output.logits / 2)
        again = pickle.loads(pickle.dumps(output))
        assert list(again) == ["loss", "logits"] and again.logits.equal(output.logits) and again[0].equal(output.loss)
        assert {**output}.keys() == {"loss", "logits"}
        for change in (lambda o: o.pop("loss"), lambda o: o.__delitem__("loss"), lambda o: o.update(loss=1)):
            with pytest.raises(Exception, match="ClassifierOutput"):
                change(output)
        output.loss = output["logits"] = torch.zeros(())
        assert output["loss"] is output.logits is output[0] is output[1]
        with pytest.raises((KeyError, IndexError)):
            output["hidden_states"]


@torch.no_grad()
def test_the_embedding_is_an_attribute_and_no_key():
    ours, _ = pair("LevitForImageClassification")
    assert ours(PIXELS).pooler_output.equal(ours.levit(PIXELS).pooler_output) and "pooler_output" not in ours(PIXELS)


@torch.no_grad()
def test_compiled_and_exported():
    ours, _ = pair("LevitForImageClassification")
    expected = ours(PIXELS).logits
    assert torch.compile(ours, backend="eager", fullgraph=True)(PIXELS).logits.equal(expected)
    exported = torch.export.export(ours, (PIXELS,)).module()(PIXELS)
    assert list(exported) == ["logits"] and exported.logits.equal(expected)


def test_attributes_that_users_read():
    for name in CLASSES:
        ours, theirs = pair(name)
        for attribute in ("device", "dtype", "main_input_name", "base_model_prefix"):
            assert getattr(ours, attribute) == getattr(theirs, attribute)
        assert ours.num_parameters() == theirs.num_parameters() and ours.config_class is LevitConfig
        for model in (ours, theirs):
            getattr(model, "levit", model).requires_grad_(False)
        assert ours.num_parameters(only_trainable=True) == theirs.num_parameters(only_trainable=True)
        if name != "LevitModel":
            assert ours.num_labels == theirs.num_labels == 7
