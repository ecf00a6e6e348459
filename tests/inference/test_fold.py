import copy
import pickle

import pytest
import torch
from torch import nn

from levit_batch.errors import CheckpointError
from levit_batch.inference import fast_linear
from levit_batch.inference.fast_linear import FastLinear
from levit_batch.inference.fold import FoldedLevit, fold
from levit_batch.levit.variants import VARIANTS
from levit_batch.pixels.preprocessing import Preprocessing
from tests.support.models import TINY, normalised, photographs, shared_model, signal_model


def pixels_for(model, count=4, seed=5):
    """uint8 [count, side, side, 3]."""
    return torch.tensor(photographs(count, model.config.image_size, seed))


def close(got, expected, atol=1e-4):
    torch.testing.assert_close(got, expected, atol=atol, rtol=0)


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_equal_to_the_unfolded_model(variant):
    model = shared_model(variant)
    pixels = pixels_for(model)
    expected = model(normalised(pixels.numpy()))
    embedding, logits = fold(model)(pixels)
    close(logits, expected.logits)
    close(embedding, expected.pooler_output)
    assert expected.logits.std(dim=0).mean() > 0.2
    close(fold(model)(pixels.permute(0, 3, 1, 2).contiguous())[1], logits, 1e-5)


@torch.no_grad()
def test_folding_is_exact_but_for_rounding():
    model = copy.deepcopy(shared_model())
    pixels = pixels_for(model)
    processor = Preprocessing.read().to_dict()
    mean, std = (torch.tensor(processor[n], dtype=torch.float64) for n in ("image_mean", "image_std"))
    expected = model.double()(((pixels / 255.0 - mean) / std).permute(0, 3, 1, 2)).logits
    got = fold(model.float()).double()(pixels)[1]  # float32 weights, float64 arithmetic
    assert 0 < (got - expected).abs().max() < 1e-5


@torch.no_grad()
def test_no_batch_norm_is_left_and_the_model_is_untouched():
    model = copy.deepcopy(shared_model())
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folded = fold(model)
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d)
    assert not any(isinstance(part, kinds) for part in folded.modules()) and not folded.training
    assert all(tensor.equal(before[name]) for name, tensor in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in folded.parameters())


@torch.no_grad()
def test_heads():
    model = shared_model()
    pixels = pixels_for(model)
    expected = model(normalised(pixels.numpy()))
    wanted = {"average": "logits", "class": "cls_logits", "distill": "distillation_logits"}
    for heads, name in wanted.items():
        folded = fold(model, heads)
        embedding, logits = folded(pixels)
        close(logits, getattr(expected, name))
        close(folded.class_head(embedding), expected.cls_logits)  # a stored embedding scores without the image
        close(folded.distill_head(embedding), expected.distillation_logits)
    with pytest.raises(CheckpointError, match="average, class or distill"):
        fold(model, "both")


@torch.no_grad()
def test_one_head():
    model = shared_model(heads=1)
    pixels = pixels_for(model)
    folded = fold(model)
    close(folded(pixels)[1], model(normalised(pixels.numpy())).logits)
    assert folded.distill_head is None
    with pytest.raises(CheckpointError, match="distillation head"):
        fold(model, "distill")


@pytest.mark.parametrize("variant", ["tiny", "128S"])
@torch.no_grad()
def test_a_batch_of_one_equals_a_batch_of_many(variant):
    folded = fold(shared_model(variant))
    pixels = pixels_for(shared_model(variant), 9)
    together = folded(pixels)
    for index in range(9):
        embedding, logits = folded(pixels[index : index + 1])
        for alone, many in zip((embedding[0], logits[0]), (out[index] for out in together), strict=True):
            close(alone, many, 1e-5 * max(1.0, many.abs().max().item()))


@pytest.mark.parametrize(
    "change",
    [
        {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]},
        {"do_normalize": False},
        {"do_rescale": False, "image_mean": [120.0, 110.0, 100.0], "image_std": [60.0, 50.0, 40.0]},
        {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]},
    ],
    ids=str,
)
@torch.no_grad()
def test_the_processors_values_are_inside(change):
    model, processor = shared_model(), Preprocessing.read(side=TINY.image_size).to_dict() | change
    pixels = pixels_for(model)
    values = pixels.permute(0, 3, 1, 2).double()
    if processor["do_rescale"]:
        values = values * processor["rescale_factor"]
    if processor["do_normalize"]:
        mean, std = (torch.tensor(processor[n]).view(1, 3, 1, 1) for n in ("image_mean", "image_std"))
        values = (values - mean) / std
    close(fold(model, processor=processor)(pixels)[1], model(values.float()).logits)
    assert (fold(model)(pixels)[1] - model(values.float()).logits).abs().max() > 1e-3


@torch.no_grad()
def test_it_pickles_and_moves():
    folded = fold(shared_model())
    pixels = pixels_for(shared_model())
    embedding, logits = folded(pixels)
    again = pickle.loads(pickle.dumps(folded))
    assert again(pixels)[1].equal(logits) and isinstance(again, FoldedLevit)
    for dtype, atol in ((torch.float64, 2e-5), (torch.float16, 0.02), (torch.float32, 0.02), (torch.bfloat16, 0.2)):
        moved = again.to(dtype)  # float32 comes back from float16: nothing is left as it was
        assert {out.dtype for out in moved(pixels)} == {dtype}
        close(moved(pixels)[1].float(), logits, atol)
    assert folded.to("meta")(pixels.to("meta"))[0].shape == embedding.shape


@torch.no_grad()
def test_loading_other_weights_leaves_nothing_stale():
    one, other = fold(shared_model()), fold(signal_model(TINY, seed=9))
    pixels = pixels_for(shared_model())
    before, expected = one(pixels)[1], other(pixels)[1]
    one.load_state_dict(other.state_dict())
    assert one(pixels)[1].equal(expected) and (before - expected).abs().max() > 1e-2


@torch.no_grad()
def test_it_compiles_without_graph_breaks_and_for_any_batch():
    folded = fold(shared_model())
    torch._dynamo.reset()
    compiled = torch.compile(folded, fullgraph=True, dynamic=True, backend="aot_eager")
    for count in (4, 3, 7):
        pixels = pixels_for(shared_model(), count)
        for got, expected in zip(compiled(pixels), folded(pixels), strict=True):
            close(got, expected, 1e-5)


@torch.no_grad()
def test_it_exports_with_a_free_batch_size():
    folded = fold(shared_model())
    example = pixels_for(shared_model(), 4)
    program = torch.export.export(folded, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},))
    assert not any("mkldnn" in str(node.target) for node in program.graph.nodes)  # nothing private in the file
    for count in (2, 5):
        pixels = pixels_for(shared_model(), count)
        close(program.module()(pixels)[1], folded(pixels)[1], 1e-5)


def test_other_shapes_are_refused():
    folded = fold(shared_model())
    for shape in ((1, 80, 64, 3), (1, 3, 80, 64), (64, 64, 3), (1, 64, 64, 4)):
        with pytest.raises(ValueError, match=r"\[B, 64, 64, 3\]"):
            folded(torch.zeros(shape, dtype=torch.uint8))


@pytest.mark.parametrize("activation", ["none", "hardswish"])
@torch.no_grad()
def test_the_fast_kernel_computes_what_linear_does(activation, monkeypatch):
    linear = FastLinear(24, 40, activation)
    features = torch.randn(3, 5, 24) * 3
    fast = linear(features)
    monkeypatch.setattr(fast_linear, "has_kernel", lambda: False)
    plain = linear(features)
    expected = features @ linear.weight.T + linear.bias
    expected = nn.functional.hardswish(expected) if activation == "hardswish" else expected
    close(plain, expected, 1e-5)
    close(fast, plain, 1e-5)
    assert linear.double()(features.double()).dtype == torch.float64
