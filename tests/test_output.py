import os
from pathlib import Path

import pytest
from pyarrow import fs

import levit_batch.output
from levit_batch.config import OutputConfig
from levit_batch.errors import OutputError
from levit_batch.output import Output, Written
from levit_batch.plan import Chunk
from levit_batch.storage import Place

OLD, NEW = "00000000", "11111111"


def output(tmp_path, store=False):
    found = Output(OutputConfig(path=str(tmp_path / "out")))
    if store:  # not a LocalFileSystem: copies and deletes, as on an object store
        found.place = Place(fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem()), "out", "store://out")
        (tmp_path / "out/data").mkdir(parents=True, exist_ok=True)
    return found


def put(found, chunk, data=b"x"):
    at = found.chunk_place(chunk)
    if not at.local:
        os.makedirs(os.path.dirname(found.place.filesystem.base_path + at.path), exist_ok=True)
    at.write_bytes(data)


def tree(tmp_path):
    return sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*") if p.is_file())


def test_a_listing_tells_what_is_done(tmp_path):
    found = output(tmp_path)
    assert found.written() == {}
    put(found, Chunk("a/b.parquet", "", OLD, 0, 100))
    put(found, Chunk("c.tar", "", NEW, 0, None))
    (tmp_path / "out/data/a/b.parquet/notes.parquet").write_bytes(b"the user's")
    assert tree(tmp_path)[0] == f"data/a/b.parquet/000000000-000000099.{OLD}.parquet"
    written = found.written()
    assert written["a/b.parquet"] == [Written(0, 100, OLD, f"000000000-000000099.{OLD}.parquet")]
    assert written["c.tar"][0].stop is None
    assert written["a/b.parquet"][0].covers(Chunk("a/b.parquet", "", OLD, 0, 50))
    assert not written["a/b.parquet"][0].covers(Chunk("a/b.parquet", "", NEW, 0, 100))
    assert not written["a/b.parquet"][0].covers(Chunk("a/b.parquet", "", OLD, 0, 101))
    assert not written["a/b.parquet"][0].covers(Chunk("a/b.parquet", "", OLD, 0, None))


@pytest.mark.parametrize("how", ["exchange", "rename", "store"])
def test_publish_replaces_a_whole_shard(tmp_path, monkeypatch, how):
    if how == "rename":
        monkeypatch.setattr(levit_batch.output, "_exchange", lambda one, other: False)
    found = output(tmp_path, store=how == "store")
    for chunk in (Chunk("s", "", OLD, 0, 10), Chunk("s", "", OLD, 10, 20), Chunk("t", "", OLD, 0, 5)):
        put(found, chunk, b"old")
    put(found, Chunk("s", "", NEW, 0, 10, staged=True), b"new")
    found.publish("s")
    assert tree(tmp_path) == [f"data/s/000000000-000000009.{NEW}.parquet", f"data/t/000000000-000000004.{OLD}.parquet"]
    assert (tmp_path / f"out/data/s/000000000-000000009.{NEW}.parquet").read_bytes() == b"new"
    assert how == "store" or not (tmp_path / "out/_staging").exists()


def test_publish_in_one_step_never_shows_both_or_neither(tmp_path):
    """On this system the folders change places: what a listing sees at any moment is one whole version."""
    found = output(tmp_path)
    put(found, Chunk("s", "", OLD, 0, 10))
    put(found, Chunk("s", "", NEW, 0, 10, staged=True))
    one, other = tmp_path / "out/_staging/s", tmp_path / "out/data/s"
    assert levit_batch.output._exchange(str(one), str(other))
    assert [p.name.split(".")[1] for p in other.iterdir()] == [NEW] and [
        p.name.split(".")[1] for p in one.iterdir()
    ] == [OLD]


def test_valid_files_join_the_new_set(tmp_path):
    found = output(tmp_path)
    put(found, Chunk("s", "", OLD, 0, 10), b"keep")
    put(found, Chunk("s", "", OLD, 10, 15), b"part")
    put(found, Chunk("s", "", OLD, 10, 20, staged=True), b"whole")
    found.stage("s", [f"000000000-000000009.{OLD}.parquet"])
    found.publish("s")
    assert tree(tmp_path) == [f"data/s/000000000-000000009.{OLD}.parquet", f"data/s/000000010-000000019.{OLD}.parquet"]


def test_overwrite_deletes_only_what_this_tool_wrote(tmp_path):
    found = output(tmp_path)
    put(found, Chunk("s", "", OLD, 0, 10))
    found.write_json("job.json", {})
    found.write_json("runs/20260101T000000Z.json", {})
    (tmp_path / "out/data/s/.000000000-000000009.00000000.parquet.77.tmp").write_bytes(b"half")
    for name in ("notes.txt", "data/s/mine.parquet", "data/extra.csv"):
        (tmp_path / "out" / name).write_bytes(b"mine")
    found.delete(found.own_files())
    assert tree(tmp_path) == ["data/extra.csv", "data/s/mine.parquet", "notes.txt"]


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    found = output(tmp_path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        put(found, Chunk("s", "", OLD, 0, 10))
    assert tree(tmp_path) == []


def test_json_errors_name_the_file(tmp_path):
    found = output(tmp_path)
    assert found.read_json("job.json") is None
    Path(tmp_path / "out").mkdir()
    (tmp_path / "out/job.json").write_text("{")
    with pytest.raises(OutputError, match="job.json: not valid JSON"):
        found.read_json("job.json")


def test_an_output_that_cannot_be_written_is_found_out(tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="cannot be"):
        output(tmp_path).require_writable()
    with pytest.raises(OutputError, match="ftp:// is not known"):
        Output(OutputConfig(path="ftp://x/y"))
