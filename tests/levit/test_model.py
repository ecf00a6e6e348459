import copy
import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers

from levit_batch.levit.blocks import Residual, bias_index
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.levit.model import LevitForImageClassification, LevitForImageClassificationWithTeacher, LevitModel
from levit_batch.levit.variants import VARIANTS
from tests.support.models import TINY, normalised, photographs, shared_model, signal_model

PARAMETERS = {"128S": 7.8, "128": 9.2, "192": 10.9, "256": 18.9, "384": 39.1}  # millions, as published


def transformers_twin(model):
    """The same weights in transformers' class, made from transformers' own configuration."""
    config = transformers.LevitConfig(**model.config.to_dict())
    twin = getattr(transformers, type(model).__name__)(config).eval()
    twin.load_state_dict(model.state_dict())
    return twin


def inputs_for(model, count=4, seed=3):
    return normalised(photographs(count, model.config.image_size, seed))


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_equal_to_transformers(variant, tmp_path):
    theirs = transformers_twin(shared_model(variant))
    theirs.save_pretrained(tmp_path)
    ours = load_checkpoint(str(tmp_path)).model
    pixels = inputs_for(ours)
    expected = theirs(pixels, output_hidden_states=True)
    pooled = theirs.levit(pixels).pooler_output
    got = ours(pixels, output_hidden_states=True)
    for name in ("logits", "cls_logits", "distillation_logits"):
        torch.testing.assert_close(getattr(got, name), expected[name], atol=1e-4, rtol=0)
    torch.testing.assert_close(got.pooler_output, pooled, atol=1e-4, rtol=0)
    states = theirs.levit(pixels, output_hidden_states=True).hidden_states
    assert len(got.hidden_states) == len(states) == 4
    for mine, other in zip(got.hidden_states, states, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-4, rtol=0)
    assert got.logits.std(dim=0).mean() > 0.2  # the images are told apart, so the comparison means something
    assert got.hidden_states[-1].mean(dim=1).equal(got.pooler_output)


@pytest.mark.parametrize("heads", [1, 2])
@torch.no_grad()
def test_transformers_loads_what_we_save(heads, tmp_path):
    ours = signal_model(TINY.with_labels(list("abcdefg")), heads=heads)
    ours.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {"model.safetensors", "config.json", "preprocessor_config.json"}
    theirs, report = getattr(transformers, type(ours).__name__).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    pixels = inputs_for(ours)
    torch.testing.assert_close(theirs.eval()(pixels).logits, ours(pixels).logits, atol=1e-4, rtol=0)
    assert theirs.config.id2label == dict(enumerate("abcdefg"))


def test_a_trained_drop_path_does_not_keep_transformers_from_loading(tmp_path):
    LevitForImageClassification(VARIANTS["384"]).save_pretrained(tmp_path)
    assert transformers.LevitConfig.from_pretrained(tmp_path).drop_path_rate == 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_counts_are_the_published_ones(variant):
    with torch.device("meta"):
        model = LevitForImageClassificationWithTeacher(VARIANTS[variant])
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 1) == PARAMETERS[variant]


def test_building_a_model_leaves_its_configuration_alone():
    before = TINY.to_json_string()
    LevitForImageClassification(TINY)
    LevitForImageClassification(TINY)
    assert TINY.to_json_string() == before


def test_bias_index_is_the_offset_of_the_two_points():
    index = bias_index(5, stride=2)
    assert index.shape == (9, 25)
    for query in range(9):
        for key in range(25):
            dy, dx = abs(query // 3 * 2 - key // 5), abs(query % 3 * 2 - key % 5)
            assert index[query, key] == dy * 5 + dx


def test_from_pretrained_of_each_class(tmp_path):
    full = signal_model(TINY)
    full.save_pretrained(tmp_path)
    pixels = inputs_for(full)
    backbone = LevitModel.from_pretrained(tmp_path)
    one_head = LevitForImageClassification.from_pretrained(str(tmp_path / "model.safetensors"))
    with torch.no_grad():
        expected = full(pixels)
        assert backbone(pixels).pooler_output.equal(expected.pooler_output)
        assert one_head(pixels).logits.equal(expected.cls_logits)
    assert not backbone.training and LevitForImageClassificationWithTeacher.from_pretrained(tmp_path).config == TINY


def test_a_backbone_saved_alone_comes_back(tmp_path):
    backbone = signal_model(TINY).levit
    backbone.save_pretrained(tmp_path)
    pixels = inputs_for(backbone)
    with torch.no_grad():
        loaded = LevitModel.from_pretrained(tmp_path)
        assert loaded(pixels).last_hidden_state.equal(backbone(pixels).last_hidden_state)
        theirs = transformers.LevitModel.from_pretrained(tmp_path).eval()
        torch.testing.assert_close(theirs(pixels).pooler_output, loaded(pixels).pooler_output, atol=1e-4, rtol=0)


def test_loss_is_the_cross_entropy_and_its_mean_over_two_heads():
    pixels, labels, teacher = inputs_for(shared_model()), torch.tensor([0, 1, 2, 3]), torch.tensor([6, 5, 4, 3])
    one, two = shared_model(heads=1), shared_model()
    with torch.no_grad():
        single = one(pixels, labels, label_smoothing=0.1)
        double = two(pixels, labels=labels, teacher_labels=teacher)
    entropy = torch.nn.functional.cross_entropy
    assert single.loss.isclose(entropy(single.logits, labels, label_smoothing=0.1))
    expected = (entropy(double.cls_logits, labels) + entropy(double.distillation_logits, teacher)) / 2
    assert double.loss.isclose(expected) and one(pixels).loss is None
    with pytest.raises(ValueError, match="both"):
        two(pixels, labels=labels)


def test_training_reaches_every_parameter():
    model = signal_model(dataclasses.replace(TINY, image_size=96)).train()  # its last stage has more than one point
    labels, teacher = torch.tensor([0, 1, 2, 3]), torch.tensor([1, 2, 3, 4])
    model(inputs_for(model), labels=labels, teacher_labels=teacher).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_fresh_model_starts_as_the_identity_in_every_residual_branch():
    model = LevitForImageClassification(TINY).eval()
    points = torch.randn(2, 16, 32)
    branches = [part for part in model.modules() if isinstance(part, Residual)]
    assert len(branches) == 10 and branches[0](points).equal(points)


def test_drop_path_skips_whole_branches_and_keeps_the_expectation():
    branch = Residual(torch.nn.Identity(), 0.25).train()
    torch.manual_seed(0)
    out = branch(torch.ones(2000, 3, 2)).flatten(1)
    assert (out == out[:, :1]).all()
    np.testing.assert_allclose(np.unique(out), [1, 1 + 1 / 0.75], rtol=1e-6)
    assert abs(out.mean() - 2) < 0.05
    assert branch.eval()(torch.ones(4, 3, 2)).eq(2).all()


def test_biases_are_read_anew_each_time():
    model = copy.deepcopy(shared_model())
    pixels = inputs_for(model)
    with torch.no_grad():
        before = model(pixels).logits
        changed = {n: t + 1.0 * torch.rand_like(t) for n, t in model.state_dict().items() if n.endswith("_biases")}
        model.load_state_dict(changed, strict=False)
        after = model(pixels).logits
        assert (after - before).abs().max() > 1e-3
        assert model.double()(pixels.double()).logits.dtype == torch.float64


def test_another_image_size_is_refused():
    with pytest.raises(ValueError, match=r"\(3, 64, 64\)"):
        shared_model()(torch.zeros(1, 3, 80, 80))


def test_the_package_and_its_configuration_do_not_import_torch():
    code = "import sys, levit_batch; levit_batch.VARIANTS, levit_batch.LevitConfig; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_every_public_name_is_there():
    import levit_batch

    for name in levit_batch.__all__:
        assert getattr(levit_batch, name).__doc__ or name == "VARIANTS"
    with pytest.raises(AttributeError):
        levit_batch.no_such_name  # noqa: B018
