import math

import numpy as np
import pytest
import torch
from torch import nn

from levit_batch.inference.predict import Predictor, jensen_shannon, whole_batches
from levit_batch.job.config import PredictConfig

LOGITS = np.array([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]], np.float32)
EMBEDDING = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)


def predictor(backend=None, heads=None, **asked):
    return Predictor(backend, PredictConfig(**{"top_k": 2} | asked), heads)


def test_scores_are_the_softmax_of_the_logits():
    answers = predictor(logits=True).answers(EMBEDDING, LOGITS)
    total = math.exp(0) + math.exp(2) + math.exp(1)
    assert answers.label.tolist() == [1, 0]
    assert np.allclose(answers.score, [math.exp(2) / total, math.exp(3) / (math.exp(3) + 2)], atol=1e-6)
    assert answers.top_labels[0].tolist() == [1, 2] and np.allclose(
        answers.top_scores[0, 1], math.exp(1) / total, atol=1e-6
    )
    assert answers.embedding.dtype == np.float16 and np.array_equal(answers.logits, LOGITS)
    assert answers.finite.all() and answers.head_label is None


def test_only_what_is_asked_for():
    answers = predictor(embeddings="none").answers(EMBEDDING, LOGITS)
    assert answers.embedding is None and answers.logits is None
    assert predictor(embeddings="float32").answers(EMBEDDING, LOGITS).embedding.dtype == np.float32


def test_values_that_are_not_finite_are_marked():
    logits = LOGITS.copy()
    logits[1, 2] = np.nan
    assert predictor().answers(EMBEDDING, logits).finite.tolist() == [True, False]
    large = EMBEDDING.copy()
    large[0, 0] = 1e6  # not a float16
    assert predictor().answers(large, LOGITS).finite.tolist() == [False, True]
    assert predictor(embeddings="float32").answers(large, LOGITS).finite.all()


def test_the_two_heads():
    one, other = nn.Linear(2, 3), nn.Linear(2, 3)
    with torch.no_grad():
        for head, rows in ((one, [[9, 0], [0, 9], [0, 0]]), (other, [[9, 9], [0, 0], [0, 0]])):
            head.weight.copy_(torch.tensor(rows))
            head.bias.zero_()
    answers = predictor(heads=(one, other), per_head=True).answers(EMBEDDING, LOGITS)
    assert answers.head_label.tolist() == [0, 1] and answers.distill_label.tolist() == [0, 0]
    assert answers.head_divergence[0] < 1e-6 and answers.head_divergence[1] > 0.9


def test_jensen_shannon_is_in_bits():
    p, q = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.5, 0.5]]), torch.tensor([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]])
    expected = 0.5 * (0.5 * math.log2(0.5 / 0.75) + 0.5 * math.log2(0.5 / 0.25)) + 0.5 * math.log2(1 / 0.75)
    assert torch.allclose(jensen_shannon(p, q), torch.tensor([1.0, 0.0, expected]), atol=1e-6)


class Corners:
    """A backend whose answers are the first pixel."""

    batch = 3

    def __call__(self, pixels):
        return pixels[:, 0, 0, :2].astype(np.float32), pixels[:, 0, 0, :].astype(np.float32)


def test_answers_join_in_order():
    pixels = np.arange(7 * 3, dtype=np.uint8).reshape(7, 1, 1, 3)
    embedding, logits = predictor(Corners())([pixels[:2], pixels[2:]])
    assert embedding[:, 0].tolist() == [0, 3, 6, 9, 12, 15, 18] and logits.shape == (7, 3)
    assert predictor(Corners())([]) is None


@pytest.mark.parametrize("sizes", [[7], [1, 1, 1, 4], [2, 1, 4], [5, 2], [3, 3, 1], [6]])
def test_only_the_last_array_is_not_of_whole_batches(sizes):
    images = np.arange(sum(sizes))
    given = np.split(images, np.cumsum(sizes)[:-1])
    got = list(whole_batches(given, 3))
    assert np.concatenate(got).tolist() == images.tolist()
    assert all(len(array) and len(array) % 3 == 0 for array in got[:-1]) and len(got[-1])
