"""Targets that match no class, in sums: what is kept of their names, and that the sums stay right when files come and go."""

import json

import pyarrow as pa
import pytest

from levit_batch.table.footer import RECORD, footer, pack, record_in
from levit_batch.table.merge import merged_record, unmatched_in
from levit_batch.table.stats import add_stats, chunk_stats, without
from levit_batch.table.target_stats import NAMES, REST, commonest, unmatched_of

CLASSES = 3


def stats(target: list, missed: list, bad: tuple[int, ...] = ()) -> dict:
    """Of rows that are labelled 0, but for the `bad`, which have an error."""
    rows = len(target)
    table = pa.table({
        "error": pa.array(["decode: x" if i in bad else None for i in range(rows)], pa.string()), "label": [0] * rows,
        "score": pa.array([0.5] * rows, pa.float32()), "top_labels": pa.array([[0, 1]] * rows, pa.list_(pa.int64(), 2)),
        "target": target,
    })  # fmt: skip
    return chunk_stats(table, CLASSES, missed=pa.array(missed))


def test_rows_without_an_error_add_up():
    found = stats([0, None, None, 1, None], [None, "cat", None, None, "cat"], bad=(4,))["target"]
    assert (found["rows"], found["without"], found["unmatched"]) == (2, 1, {"rows": 1, "names": {"cat": 1}})


def test_a_row_with_another_truth_is_judged_and_its_names_are_counted():
    found = stats([[0], [], None, []], [["cat"], ["cat", "dog"], None, []])["target"]
    assert (found["rows"], found["without"]) == (1, 2)
    assert found["unmatched"] == {"rows": 1, "names": {"cat": 2, "dog": 1}}


def test_the_commonest_names_stay_and_none_is_lost_from_the_sum():
    counts = {f"name {i}": i + 1 for i in range(100)}
    kept = commonest(counts)
    assert len(kept) == NAMES + 1 and sum(kept.values()) == sum(counts.values())
    assert list(kept)[:2] == ["name 99", "name 98"] and kept[REST] == sum(range(1, 81))


def test_what_goes_is_taken_away_again():
    parts = [stats([None] * 40, [f"{i} of {n}" for i in range(40)]) for n in range(3)] + [stats([0, None], [None, "cat"])]
    total = add_stats(parts)
    assert unmatched_of(total)["rows"] == sum(unmatched_of(total)["names"].values()) == 121
    less = unmatched_of(without(total, parts[:2]))
    assert less["rows"] == sum(less["names"].values()) == 41 and all(n > 0 for n in less["names"].values())
    assert unmatched_of(without(total, parts[:3])) == {"rows": 1, "names": {REST: 1}}  # cat was among the others
    few = [stats([None, 0], [name, None]) for name in ("cat", "dog", "cat")]
    assert unmatched_of(without(add_stats(few), few[:1])) == {"rows": 2, "names": {"cat": 1, "dog": 1}}


def test_sums_of_an_older_table_count_as_nothing():
    old = stats([0, None], [None, "cat"])
    del old["target"]["unmatched"]
    assert unmatched_of(add_stats([old, stats([None], ["cat"])])) == {"rows": 1, "names": {"cat": 1}}
    assert unmatched_of(add_stats([old])) == {"rows": 0, "names": {}}


def record(first: int, one: dict) -> dict:
    return {"shard": "s", "first": first, "stop": first + one["rows"], "rows": one["rows"], "errors": {}, "stats": one}


def test_a_merged_file_knows_which_of_its_chunks_has_them():
    chunks = [stats([0, 0], [None, None]), stats([None, 0], ["cat", None]), stats([None, None], ["cat", "dog"])]
    merged = merged_record([record(2 * i, one) for i, one in enumerate(chunks)])
    assert unmatched_of(merged["stats"]) == {"rows": 3, "names": {"cat": 2, "dog": 1}}
    assert [len(part) for part in merged["parts"]] == [3, 4, 4], "only where there is something to say"
    assert unmatched_in(merged, 0, 2) == [] and unmatched_in(merged, 2, 4) == [{"rows": 1, "names": {"cat": 1}}]
    assert len(unmatched_in(json.loads(json.dumps(merged)), 0, 6)) == 2


@pytest.mark.parametrize("names", [["~keys", "~values"], ["5", "1000"], ["", "größe"]])
def test_a_footer_gives_them_back(names):
    before = record(0, stats([None, None], names))
    assert record_in(footer("f", before)) == json.loads(json.dumps(before))


def test_a_footer_stays_small():
    few = record(0, stats([None] * 2048, ["cat"] * 2048))
    many = record(0, stats([None] * 2048, [f"{hash(str(i)) & (1 << 60) - 1:039d}"[::-1] for i in range(2048)]))
    assert len(pack(many)) - len(pack(few)) < 1200 and RECORD in footer("f", many)
