"""What a run says of accuracy when it ends: of which rows, against which truth, and which targets match nothing."""

from types import SimpleNamespace

import pytest

from pipelines.screen.summary import summary

RECORD = {"rows": 0, "begun_again": 0, "rows_gone": 0, "shards": {"vanished": {"count": 0}}}
NONE = {"rows": 0, "targets": 0, "names": {}}
CAT = {"rows": 31, "targets": 31, "names": {"cat": 31}}


def said(judged: int, unmatched: dict | None, **metrics) -> list[str]:
    """The lines of a table of 61 rows."""
    target = {"rows": judged} | ({"unmatched": unmatched} if unmatched else {})
    metrics = {"rows": 61, "errors": {}, "top1": 0.5 if judged else None, "top5": None, "target": target} | metrics
    config = SimpleNamespace(output=SimpleNamespace(path="out"))
    return summary(config, SimpleNamespace(record=RECORD, metrics=metrics, exit_code=0)).splitlines()[1:-1]


def test_accuracy_over_all_rows():
    assert said(61, NONE) == said(61, None) == ["top-1 0.5000"]


def test_targets_that_match_nothing_are_named():
    top, missed = said(30, CAT, top5=1.0)
    assert top == "top-1 0.5000 of 30 rows, top-5 1.0000"
    assert missed.startswith("31 targets match no class of the model (cat: 31)") and "source.class_names" in missed
    assert said(0, CAT) == [missed], "also where none matches"


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ({"a": 1}, "1 target matches no class of the model (a: 1)"),
        (dict.fromkeys("abcdef", 2), "12 targets match no class of the model (a: 2, b: 2, c: 2, d: 2, e: 2, others: 2)"),
    ],
)
def test_a_few_names_are_spelt_out(names, shown):
    n = sum(names.values())
    assert said(61 - n, {"rows": n, "targets": n, "names": names})[1].startswith(shown)


def test_another_truth_is_named():
    truth = {"table": "truth.parquet", "column": "klass"}
    assert said(61, NONE, truth=truth) == ["top-1 0.5000 against truth.parquet (klass)"]
    assert said(30, CAT, truth=truth) == [
        "top-1 0.5000 of 30 rows against truth.parquet (klass)", "31 targets match no class of the model (cat: 31)"
    ]  # fmt: skip
