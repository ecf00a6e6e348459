"""The fault matrix (`tests/benchmarks/faults.py`, which plays it whole): a few of its cases, chosen anew each time and told."""

import random

import pytest

from tests.support.fault_cases import staged, wrong
from tests.support.models import TINY, signal_model
from tests.support.nights_engine import Engine
from tests.support.nights_images import Model

CASES = 6  # of each pair, besides its last kill


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    signal_model(TINY.with_labels([f"LABEL_{i}" for i in range(10)])).save_pretrained(folder)
    with Engine(Model(folder)) as engine:
        yield engine


@pytest.mark.parametrize(
    ("command", "store"), [("run", "disk"), ("night", "memory"), ("compact", "plain"), ("rescore", "disk"), ("push", "disk")]
)
def test_a_command_that_was_disturbed_ends_well_the_next_time(engine, tmp_path, command, store):
    seed = random.SystemRandom().randrange(10**6)
    with staged(engine, tmp_path, command, store) as stage:
        cases = list(stage.cases())
        last = [case for case in cases if case.what.startswith("kill")][-1:]
        for case in [*last, *random.Random(seed).sample(cases, CASES)]:
            _, why = wrong(stage, case)
            assert not why, f"python -m tests.benchmarks.faults {case}\n{why}"
