"""The learning rate of each step, and what weight decay is on."""

import pytest

from levit_batch.levit.model import LevitForImageClassification
from levit_batch.training.config import TrainConfig
from levit_batch.training.optimise import learning_rate, make_optimizer
from tests.support.models import TINY


def test_rate_rises_linearly_then_falls_along_a_cosine():
    config = TrainConfig(learning_rate=1.0, final_learning_rate=0.1)
    rates = [learning_rate(step, 111, 10, config) for step in range(111)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0 and rates[60] == pytest.approx(0.55) and rates[110] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert learning_rate(500, 111, 10, config) == pytest.approx(0.1)  # more rows than planned


def test_rate_without_warmup_starts_at_the_top():
    assert learning_rate(0, 100, 0, TrainConfig(learning_rate=0.5)) == 0.5


def test_weight_decay_is_on_matrices_and_kernels_only():
    model = LevitForImageClassification(TINY)
    decayed, kept = make_optimizer(model, TrainConfig(weight_decay=0.3)).param_groups
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert all("linear.weight" in name or "convolution.weight" in name for name in named(decayed, names))
    assert all("bias" in name or "batch_norm" in name for name in named(kept, names))
    assert len(decayed["params"]) + len(kept["params"]) == len(names)


def test_frozen_parameters_are_left_out():
    model = LevitForImageClassification(TINY)
    model.levit.requires_grad_(False)
    groups = make_optimizer(model, TrainConfig()).param_groups
    assert sum(len(group["params"]) for group in groups) == len(list(model.classifier.parameters()))


def named(group: dict, names: dict[int, str]) -> list[str]:
    return [names[id(parameter)] for parameter in group["params"]]
