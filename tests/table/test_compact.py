"""Small files merged: the same rows in the same order, for every reader and for the next run."""

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import OutputError
from levit_batch.job.chunks import Chunk
from levit_batch.storage.place import Place
from levit_batch.table.compact import compact, neighbours
from levit_batch.table.live import look
from levit_batch.table.manifest import read_manifest
from levit_batch.table.merge import Merge, groups_of, parts_of
from levit_batch.table.output import MANIFEST, Written
from levit_batch.table.plan import Done, Plan
from levit_batch.table.read import read_table, require_files
from levit_batch.table.reopen import reopen_errors
from levit_batch.table.scan import scan
from levit_batch.table.write import ROW_GROUP_ROWS, read_record
from pipelines.cli import main
from tests.support.outputs import make_output, named_by_manifest

V = "0" * 8


def file(first, stop, version=V, size=10):
    return Written(first, stop, version, f"{first:09d}-{stop - 1:09d}.{version}.parquet", size)


def ranges(merges):
    return [[(part.first, part.stop) for part in merge.parts] for merge in merges]


def test_only_neighbours_of_one_version_are_merged():
    files = [file(0, 10), file(10, 20), file(25, 30), file(30, 40), file(40, 50, "1" * 8), file(50, 60, "1" * 8), file(60, 70)]
    assert ranges(neighbours("f", files, 100)) == [[(0, 10), (10, 20)], [(25, 30), (30, 40)], [(40, 50), (50, 60)]]
    assert ranges(neighbours("f", files[:2], 19)) == [] and ranges(neighbours("f", [files[0]], 100)) == []
    large = [file(i * 10, i * 10 + 10, size=200 << 20) for i in range(5)]
    assert ranges(neighbours("f", large, 100)) == [[(0, 10), (10, 20)], [(20, 30), (30, 40)]]


def test_a_tail_of_unknown_length_stays_one():
    tail = Written(10, None, V, f"000000010-end.{V}.parquet", 10)
    (merge,) = neighbours("f", [file(0, 10), tail], 100)
    assert merge.name == f"000000000-end.{V}.parquet"
    assert Merge("f", (file(0, 10), file(10, 20))).name == f"000000000-000000019.{V}.parquet"


def test_the_command_says_nothing_of_megabytes_that_are_not_there(tmp_path, capsys):
    assert main(["compact", str(make_output(tmp_path).path)]) == 0
    assert capsys.readouterr() == (f"9 files before, 3 now: {tmp_path}/out/data\n", "")


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_every_row_stays_and_the_files_get_few(tmp_path, format):
    made = make_output(tmp_path, format=format, per_head=True, logits=True)
    files = require_files(made.output)
    rows, schema = list(scan(made.output)), read_table(files[0].place).schema.remove_metadata()
    asked = []
    counts = compact(made.output, lambda: asked.append(1))
    merged = require_files(made.output)
    assert (counts["before"], counts["after"]) == (len(files), len(merged)) and len(merged) == len({f.folder for f in files})
    assert asked, "who lost the output stops"
    after = list(scan(made.output))
    joined, before = (pa_concat(tables) for tables in (after, rows))
    assert joined.equals(before) and read_table(merged[0].place).schema.remove_metadata() == schema
    record = read_record(merged[0].place)
    assert record["rows"] == after[0].num_rows and len(parts_of(record)) == len(files) // len(merged)
    manifest = read_manifest(made.output)
    assert named_by_manifest(made.output) and manifest.sums["rows"] == joined.num_rows and not manifest.publishing
    assert not list(tmp_path.rglob("out/_*/*"))
    assert compact(made.output, lambda: None) == {"before": len(merged), "after": len(merged), "bytes": 0}


def pa_concat(tables):
    return pa.concat_tables([table.replace_schema_metadata() for table in tables]).combine_chunks()


def test_row_groups_are_full():
    tables = (pa.table({"x": pa.array(range(n), pa.int64())}) for n in (70_000, 10, 0, 100_000))
    sizes = [table.num_rows for table in groups_of(tables)]
    assert sizes == [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 70_000 + 10 + 100_000 - 2 * ROW_GROUP_ROWS]


def test_the_errors_of_a_merged_file_cost_their_own_chunks_only(tmp_path):
    made = make_output(tmp_path, rows=60, bad=6, shards=1)
    files = require_files(made.output)
    bad = [file.written for file in files if read_record(file.place)["errors"]]
    assert 1 <= len(bad) < len(files)
    compact(made.output, lambda: None)
    (whole,) = require_files(made.output)
    record = read_record(whole.place)
    chunk = Chunk(record["shard"], "", whole.written.version, whole.written.first, whole.written.stop)
    plan = Plan(done=Done(chunks=[chunk]), done_rows=record["rows"], live=look(made.output))
    reopen_errors(plan, made.output)
    # As what another --retry-errors staged before it was killed.
    old = [at for at in made.output.own_files() if "/_staging/" in at.path]
    reopened = Plan(done=Done(chunks=[chunk]), done_rows=record["rows"], live=plan.live, garbage=old)
    reopen_errors(reopened, made.output)
    assert old and not reopened.garbage, "what is staged anew is not cleared away"
    assert [(c.first, c.stop, c.staged) for c in plan.pending] == [(w.first, w.stop, True) for w in bad]
    assert plan.done_rows == record["rows"] - sum(w.stop - w.first for w in bad) and len(plan.done) == 0
    (replacement,) = plan.replacements.values()
    staged = sorted((made.path / "_staging" / whole.folder).iterdir())
    assert {path.name for path in staged} | {made.output.file_name(c) for c in plan.pending} == replacement.names
    kept = [json.loads(json.dumps(read_record(made.output.place.join("_staging", whole.folder, p.name)))) for p in staged]
    assert sum(one["rows"] for one in kept) == plan.done_rows and not any(one["errors"] for one in kept)
    for path, one in zip(staged, kept, strict=True):
        table = pq.read_table(path, partitioning=None)
        assert table["row"].to_pylist() == list(range(one["first"], one["stop"]))


def inside(folder):
    """Files and folders of an output; the versions in their names are of the day they were made."""
    return sorted(re.sub(r"\.[0-9a-f]{8}\.", ".", str(path.relative_to(folder))) for path in folder.rglob("*"))


@pytest.mark.parametrize("said", [None, b""])
def test_a_compact_that_was_killed_leaves_nothing_behind_after_the_next(tmp_path, monkeypatch, said):
    """said: by a run whose rows are not measured yet."""
    made, other = make_output(tmp_path / "killed"), make_output(tmp_path / "whole")
    compact(other.output, lambda: None)
    if said is not None:
        made.output.write("_unmeasured", said)
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        patch.setattr("levit_batch.table.compact._merge_all", lambda *_: {}["killed"])
        compact(made.output, lambda: None)
    compact(made.output, lambda: None)
    file = require_files(made.output)[0]
    for folder in ("_swap/part-00-0123456789abcdef-00", "_staging/part-00-0123456789abcdef", f"_staging/{file.folder}"):
        (made.path / folder).mkdir(parents=True)
    (made.path / "_staging" / file.folder / file.written.name).write_bytes(b"stands in its place already")
    (made.path / "_swap/part-00-0123456789abcdef-00" / file.written.name).write_bytes(b"an old one")
    compact(made.output, lambda: None)
    assert inside(made.path) == sorted(inside(other.path) + ["_unmeasured"] * (said is not None))


@pytest.mark.parametrize("half", [0, 1])
def test_half_a_manifest_is_none_whenever_it_is_read(tmp_path, monkeypatch, half):
    """half: which of the reads, of a table whose manifest was lost, gets half the file, as if it were all of it."""
    made, asked, read_bytes = make_output(tmp_path), [], Place.read_bytes
    made.output.place.join(MANIFEST).delete()

    def read(place):
        data = read_bytes(place)
        asked.extend([place] * place.path.endswith(MANIFEST))
        return data[: len(data) // 2] if asked[half:] == [place] else data

    monkeypatch.setattr(Place, "read_bytes", read)
    assert compact(made.output, lambda: None)["after"] == 3 and len(asked) > half
    assert named_by_manifest(made.output) and read_manifest(made.output).sums["rows"] == 120


def test_a_part_that_cannot_be_read_is_named(tmp_path):
    made = make_output(tmp_path)
    at = require_files(made.output)[0].place
    at.write_bytes(at.read_bytes()[:100])
    with pytest.raises(OutputError, match=r"\.parquet: cannot be read .*; delete it and run the job again"):
        compact(made.output, lambda: None)
