"""Random nights (`tests/benchmarks/nights.py`, which runs them for hours), as many as a test run has time for."""

import random
import shutil

import pytest

from tests.support.models import TINY, signal_model
from tests.support.nights_engine import Engine
from tests.support.nights_images import Model
from tests.support.nights_sequence import SOURCES, Sequence

NIGHTS = 4
SEEDS = (1, 2)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nights")
    signal_model(TINY.with_labels([f"LABEL_{i}" for i in range(10)])).save_pretrained(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        with Engine(Model(folder)) as engine:
            yield engine


@pytest.mark.parametrize("store", ["disk", "plain", "memory"])
@pytest.mark.parametrize("source", SOURCES)
def test_every_row_stands_once_and_right_whatever_the_nights_bring(engine, tmp_path, source, store):
    """Two sequences with fixed seeds, so that all see the same, and one with a seed of its own, which it tells."""
    for seed in (*SEEDS, random.SystemRandom().randrange(10**6)):
        sequence = Sequence(engine, tmp_path / str(seed), seed, source, store)
        try:
            sequence.play(NIGHTS)
        except Exception as e:
            wrong = isinstance(e, AssertionError)
            again = (
                f"python -m tests.benchmarks.nights --nights {NIGHTS} --seed {seed} --source {source} --store {store}"
            )
            pytest.fail("\n".join([again, *sequence.said, f"=> {type(e).__name__}: {e}"]), pytrace=not wrong)
        shutil.rmtree(tmp_path / str(seed))
