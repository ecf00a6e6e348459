"""Which shards share a file of a copy: whole ones, that stay where they are."""

import pytest

from levit_batch.errors import OutputError
from levit_batch.table.books import up_to_date
from levit_batch.table.copy_plan import CopyFile, State, plan_copy, require_once, states
from tests.support.outputs import make_output

ALL = 1 << 60


def table(**rows):
    return {name: State(count, count * 10, f"{name}-{count}") for name, count in rows.items()}


def held(plan):
    return {file.number: sorted(file.shards) for file in plan}


def test_small_shards_share_files_and_none_is_cut():
    plan = plan_copy([], table(a=4, b=4, c=4, d=25, e=1), 10, ALL)
    assert held(plan) == {0: ["a", "b"], 1: ["c"], 2: ["d"], 3: ["e"]}
    assert held(plan_copy([], table(a=4, b=4, c=4), ALL, 80)) == {0: ["a", "b"], 1: ["c"]}, "bytes count, too"
    assert held(plan_copy([], {}, 10, ALL)) == {0: []}


def test_a_shard_stays_in_its_file_and_new_ones_follow():
    first = plan_copy([], table(b=4, d=4, f=4), 10, ALL)
    again = plan_copy(first, table(b=40, d=4, f=4, a=4, c=4), 10, ALL)
    assert held(again) == {0: ["b", "d"], 1: ["a", "f"], 2: ["c"]}
    assert again[0] != first[0] and again[0].shards["d"] == first[0].shards["d"], "what grew is written again, where it was"


def test_what_is_gone_leaves_its_file_and_an_empty_file_goes():
    first = plan_copy([], table(a=4, b=4, c=9, d=9), 10, ALL)
    again = plan_copy(first, table(b=4, d=9), 10, ALL)
    assert held(again) == {0: ["b"], 1: [], 2: ["d"]} and again[2] == first[2]
    assert held(plan_copy(again, table(b=4), 10, ALL)) == {0: ["b"], 1: [], 2: []}


def test_two_files_with_one_shard_are_refused():
    with pytest.raises(OutputError, match="COPY: 00001 and 00007 both hold a; delete one"):
        require_once([CopyFile(1, {"a": "x"}), CopyFile(2, {"b": "x"}), CopyFile(7, {"a": "x"})], "COPY")


def test_what_a_shard_is_made_of_comes_from_the_manifest(tmp_path):
    made = make_output(tmp_path)
    manifest = up_to_date(made.output)
    told = states(manifest)
    sizes = {folder: sum(f.stat().st_size for f in (made.path / "data" / folder).iterdir()) for folder in told}
    assert len(told) == 3 and {one.rows for one in told.values()} == {40} and {f: s.bytes for f, s in told.items()} == sizes
    runs = manifest.files["run"].to_pylist()
    changed = manifest.files.set_column(manifest.files.schema.get_field_index("run"), "run", [["later", *runs[1:]]])
    other = states(type(manifest)(changed, manifest.sums))
    assert sum(other[folder] != told[folder] for folder in told) == 1, "a chunk that was labelled again is another"
