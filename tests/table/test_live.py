"""What is newer than the manifest is seen, what it knows is not read, and a publish that was cut off is brought to its end."""

import os
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.job.chunks import Chunk
from levit_batch.sources.source import open_source
from levit_batch.table.books import Change, keep, up_to_date
from levit_batch.table.live import look
from levit_batch.table.manifest import merged, read_manifest, write_manifest
from levit_batch.table.merge import Merge, stage
from levit_batch.table.output import folder_of
from levit_batch.table.plan import make_plan
from levit_batch.table.publish import finish_publish
from levit_batch.table.read import require_files
from tests.support.outputs import make_output, named_by_manifest


@pytest.fixture
def made(tmp_path):
    """An output whose manifest was made long after its last change."""
    made = make_output(tmp_path, per_head=True)
    for folder in (made.path / "data").iterdir():
        os.utime(folder, (1_700_000_000, 1_700_000_000))
    write_manifest(made.output, up_to_date(made.output))
    return made


def folder(made):
    return min((made.path / "data").iterdir())


def shards_of(made):
    return list(open_source(made.config.source).shards())


def made_chunks(made):
    """As `make_output` cuts them."""
    size = made.config.compute.chunk_rows
    for shard in shards_of(made):
        for first in range(0, shard.rows, size):
            yield Chunk(shard.name, shard.url, shard.version, first, min(first + size, shard.rows))


def test_what_did_not_change_is_neither_listed_nor_read(made, monkeypatch):
    monkeypatch.setattr("levit_batch.table.books.read_record", None)
    monkeypatch.setattr(type(made.output), "written_in", None)
    assert look(made.output).current and up_to_date(made.output).sums["rows"] == made.table.num_rows
    assert sorted(look(made.output)) == sorted(path.name for path in (made.path / "data").iterdir())


def test_a_file_that_somebody_deleted_is_missed(made):
    gone = min(folder(made).iterdir())
    rows = pq.read_metadata(gone).num_rows
    gone.unlink()
    assert list(look(made.output).listed) == [folder(made).name]
    after = up_to_date(made.output)
    assert after.sums["rows"] == made.table.num_rows - rows == sum(after.files["rows"].to_pylist())


def test_a_shard_that_is_gone_is_gone(made):
    before = len(look(made.output))
    shutil.rmtree(folder(made))
    assert len(look(made.output)) == before - 1 and not look(made.output).current


def test_what_a_run_beside_wrote_while_the_manifest_was_made_is_seen(made):
    """Its folder changed after this run had looked, and before this run's manifest was written."""
    old = replace(up_to_date(made.output), looked=1_800_000_000 * 10**9)
    os.utime(folder(made), (1_800_000_001, 1_800_000_001))
    write_manifest(made.output, old)
    os.utime(made.path / "files.parquet", (1_800_000_002, 1_800_000_002))
    assert look(made.output).changed == (folder(made).name,)


@pytest.mark.parametrize("data", [b"", b"PAR1 no table", None])
def test_a_manifest_that_is_lost_or_broken_is_made_again(made, data):
    before = read_manifest(made.output)
    path = made.path / "files.parquet"
    path.unlink() if data is None else path.write_bytes(data)
    again = up_to_date(made.output)
    assert again.files.equals(before.files) and again.sums == before.sums


def test_an_empty_table_has_a_manifest_too(made):
    shutil.rmtree(made.path / "data")
    write_manifest(made.output, up_to_date(made.output))
    assert read_manifest(made.output).slices == {} == dict(look(made.output)) and look(made.output).current


def merging(made):
    """One shard's files staged as one, and the change that puts it in their place."""
    name = folder(made).name
    merge = Merge(name, tuple(sorted(look(made.output)[name], key=lambda file: file.first)))
    assert stage(made.output, merge)
    return merge, Change(names={name: frozenset({merge.name})})


def test_sums_stay_those_of_the_rows_whatever_goes_and_comes(made):
    _, change = merging(made)
    kept = keep(made.output, look(made.output), change)
    (made.path / "files.parquet").unlink()
    counted = keep(made.output, look(made.output), change)
    assert kept.sums == counted.sums and kept.files.equals(counted.files)
    gone = keep(made.output, look(made.output), Change(gone=frozenset({folder(made).name})))
    assert gone.sums["rows"] == made.table.num_rows - sum(
        pq.read_metadata(path).num_rows for path in folder(made).iterdir()
    )


def test_a_publish_that_was_cut_off_right_after_its_manifest_is_finished(made):
    merge, change = merging(made)
    cut = replace(keep(made.output, look(made.output), change), publishing=(merge.folder,))
    write_manifest(made.output, cut)
    assert all(made.output.place.join(path).exists() for path in cut.files["path"].to_pylist())
    finish_publish(made.output, lambda: None)
    assert [file.written.name for file in require_files(made.output) if file.folder == merge.folder] == [merge.name]
    assert named_by_manifest(made.output) and not read_manifest(made.output).publishing
    assert not (made.path / "_staging").exists() and not (made.path / "_swap").exists()


def test_a_publish_that_cannot_be_finished_is_forgotten(made):
    merge, change = merging(made)
    write_manifest(made.output, replace(keep(made.output, look(made.output), change), publishing=(merge.folder,)))
    shutil.rmtree(made.path / "_staging")
    before = sorted((made.path / "data").rglob("*.parquet"))
    finish_publish(made.output, lambda: None)
    assert sorted((made.path / "data").rglob("*.parquet")) == before and read_manifest(made.output) is None


def test_files_that_are_known_are_not_made_to_be_counted(made, monkeypatch):
    """A plan of a million chunks of which nothing is pending makes none of their names."""
    chunks = list(made_chunks(made))
    with monkeypatch.context() as patch:
        patch.setattr("levit_batch.table.live._of_manifest", None)
        plan = make_plan(chunks, made.output, None, shards_of(made))
        assert (len(plan.done), plan.pending, plan.done_rows) == (len(chunks), [], made.table.num_rows)
    assert list(plan.done) == chunks
    plan.done.discard(chunks[:2])
    assert list(plan.done) == chunks[2:] and len(plan.done) == len(chunks) - 2


def test_a_folder_holds_only_just_these_chunks(made):
    live, name = look(made.output), folder(made).name
    own = [chunk for chunk in made_chunks(made) if folder_of(chunk.shard) == name]
    first, *rest = own
    assert live.holds(name, own) and not live.holds(name, rest) and not live.holds(name, [])
    for other in ({"version": "0" * 8}, {"first": first.first + 1}, {"stop": first.stop - 1}, {"stop": None}):
        assert not live.holds(name, [replace(first, **other), *rest])
    assert not live.holds("other", own)
    min(folder(made).iterdir()).unlink()
    assert not look(made.output).holds(name, own)


def test_a_manifest_is_read_once_until_it_is_another(made, monkeypatch):
    before = read_manifest(made.output)
    assert read_manifest(made.output) is before
    monkeypatch.setattr("levit_batch.table.manifest._manifest_of", None)
    write_manifest(made.output, replace(before, read_anew=("data/a/b",), looked=7))
    again = read_manifest(made.output)
    assert (again.looked, again.read_anew, again.sums) == (7, (), before.sums)


@pytest.mark.parametrize("pieces", [1, 20_000])
@pytest.mark.parametrize("seed", range(5))
def test_what_changed_stands_where_it_belongs(monkeypatch, pieces, seed):
    """Whether the old rows are copied or not."""
    monkeypatch.setattr("levit_batch.table.manifest.PIECES", pieces)
    random = np.random.default_rng(seed)
    names = [f"data/{i // 3:03d}/{i % 3}" for i in random.permutation(60)]
    old = pa.table({"path": pa.array(sorted(names[: 40 * (seed > 0)]), pa.string())})
    stays = random.random(len(old)) < (1.0, 0.5, 0.9, 0.0, 1.0)[seed]
    new = pa.table({"path": names[40 : 60 * (seed < 4)]}, schema=old.schema)
    expected = sorted([path for path, stay in zip(old["path"].to_pylist(), stays, strict=True) if stay] + new["path"].to_pylist())
    assert merged(old, stays, new)["path"].to_pylist() == expected
