"""Damaged images (`tests/benchmarks/mutants.py` plays a hundred thousand): some of every format, others each time, and told."""

import random
from collections import Counter

import pytest

from tests.benchmarks.mutants import thousand
from tests.support.mutants import opens, whole

COUNT = 400


def test_every_format_that_is_damaged_is_one_that_opens():
    assert len(whole()) >= 28
    for form, images in whole().items():
        for data in images:
            assert opens(data).upper() == form


def test_a_damaged_image_costs_its_own_row_and_no_neighbour(capsys):
    first, counts = random.SystemRandom().randrange(10**9), Counter()
    at = first
    while at < first + COUNT:
        at = thousand(at, first + COUNT, counts)
    said = capsys.readouterr().out
    assert not counts["wrong"], said
    assert counts["image"] and counts["decode"] and sum(counts.values()) == COUNT
    if counts["ended its process"]:
        pytest.skip(f"a decoder ended its process, which a job survives: {said}")
