"""The preprocessing benchmark runs and names every contestant; its figures are read by people."""

from tests.benchmarks.preprocess import measure
from tests.support.images import photographs


def test_it_measures_every_way():
    figures = measure(photographs(2, 120, 90), rounds=1)
    assert {"pillow", "simplejpeg, exact"} <= figures["decode"].keys()
    assert {"Preprocessor, exact", "transformers, pillow", "IsolatedPreprocessor"} <= figures["whole"].keys()
    assert all(rate > 0 for stage in ("decode", "resize", "whole") for rate in figures[stage].values())
    assert figures["behaviour"]["simplejpeg, exact"]["equal to Pillow"] == "2 of 2"
    assert figures["behaviour"]["simplejpeg, exact"]["half and an end marker"] == "raises ValueError"
