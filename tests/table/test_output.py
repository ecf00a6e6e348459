import errno
import os
import re
from pathlib import Path

import pytest
from pyarrow import fs

import levit_batch.table.output
from levit_batch.errors import OutputError
from levit_batch.job.chunks import Chunk
from levit_batch.job.config import OutputConfig
from levit_batch.storage.place import Place
from levit_batch.table.output import Output, Written, folder_of

OLD, NEW = "00000000", "11111111"
AB, S, T = folder_of("a/b.parquet"), folder_of("s"), folder_of("t")


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
    (tmp_path / f"out/data/{AB}/notes.parquet").write_bytes(b"the user's")
    assert tree(tmp_path)[0] == f"data/{AB}/000000000-000000099.{OLD}.parquet"
    written = found.written()
    assert written[AB] == [Written(0, 100, OLD, f"000000000-000000099.{OLD}.parquet")]
    assert written[folder_of("c.tar")][0].stop is None


def test_a_shards_folder_is_its_own_and_nothing_else_to_any_reader():
    names = ["images", "images/x.png", "a/b", "a-b", "A/b", "a/b.parquet", "a/b.png", "label=3/x.parquet", "_x.parquet"]
    names += [".hidden", "é.parquet", "e\u0301.parquet", "x" * 5000, "x" * 5001, "bad\udcff.png", "{a,b}[1]*?.parquet", ""]
    folders = [folder_of(name) for name in names]
    assert len({folder.lower() for folder in folders}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9-]*[0-9a-f]{16}|[0-9a-f]{16}", folder) for folder in folders)
    assert max(map(len, folders)) < 100 and folder_of("mon/part-0.parquet").startswith("mon-part-0-")


def file(first, stop, version):
    return f"{first:09d}-{stop - 1:09d}.{version}.parquet"


@pytest.mark.parametrize("how", ["exchange", "rename", "store"])
def test_publish_replaces_a_whole_shard(tmp_path, monkeypatch, how):
    if how == "rename":
        monkeypatch.setattr(levit_batch.table.output, "_exchange", lambda one, other: False)
    found = output(tmp_path, store=how == "store")
    for chunk in (Chunk("s", "", OLD, 0, 10), Chunk("s", "", OLD, 10, 20), Chunk("t", "", OLD, 0, 5)):
        put(found, chunk, b"old")
    put(found, Chunk("s", "", NEW, 0, 10, staged=True), b"new")
    (tmp_path / f"out/data/{S}/mine.csv").write_text("mine")
    found.publish(S, frozenset([file(0, 10, NEW)]))
    assert tree(tmp_path) == sorted([f"data/{S}/{file(0, 10, NEW)}", f"data/{S}/mine.csv", f"data/{T}/{file(0, 5, OLD)}"])
    assert (tmp_path / f"out/data/{S}/{file(0, 10, NEW)}").read_bytes() == b"new"
    assert how == "store" or not (tmp_path / "out/_staging").exists()
    found.publish(S, frozenset([file(0, 10, NEW)]))  # another run publishes the same
    assert f"data/{S}/{file(0, 10, NEW)}" in tree(tmp_path)


@pytest.mark.parametrize("how", ["exchange", "rename", "store"])
def test_publish_touches_nothing_when_a_staged_file_is_gone(tmp_path, monkeypatch, how):
    if how == "rename":
        monkeypatch.setattr(levit_batch.table.output, "_exchange", lambda one, other: False)
    found = output(tmp_path, store=how == "store")
    put(found, Chunk("s", "", OLD, 0, 20), b"old")
    put(found, Chunk("s", "", NEW, 0, 10, staged=True), b"new")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="1 of 2 files of .* not there any more"):
        found.publish(S, frozenset([file(0, 10, NEW), file(10, 20, NEW)]))
    assert tree(tmp_path) == before


def test_an_exchange_that_fails_for_another_reason_touches_nothing(tmp_path, monkeypatch):
    found = output(tmp_path)
    put(found, Chunk("s", "", OLD, 0, 10))
    put(found, Chunk("s", "", NEW, 0, 10, staged=True))
    before = tree(tmp_path)

    def denied(one, other):
        raise PermissionError(errno.EACCES, "Permission denied", one)

    monkeypatch.setattr(levit_batch.table.output, "_exchange", denied)
    with pytest.raises(OutputError, match="cannot be replaced: .*Permission denied"):
        found.publish(S, frozenset([file(0, 10, NEW)]))
    assert tree(tmp_path) == before


def test_two_runs_that_exchange_the_same_folders_lose_nothing(tmp_path, monkeypatch):
    """The other one changes them back right after: the new files are still there, staged, and the next run goes on."""
    found, exchange = output(tmp_path), levit_batch.table.output._exchange
    put(found, Chunk("s", "", OLD, 0, 10))
    put(found, Chunk("s", "", NEW, 0, 10, staged=True))
    monkeypatch.setattr(levit_batch.table.output, "_exchange", lambda *two: exchange(*two) and exchange(*two))
    with pytest.raises(OutputError, match="another run changed this output"):
        found.publish(S, frozenset([file(0, 10, NEW)]))
    assert f"_staging/{S}/{file(0, 10, NEW)}" in tree(tmp_path)
    monkeypatch.setattr(levit_batch.table.output, "_exchange", exchange)
    found.publish(S, frozenset([file(0, 10, NEW)]))
    assert tree(tmp_path) == [f"data/{S}/{file(0, 10, NEW)}"]


def test_publish_in_one_step_never_shows_both_or_neither(tmp_path):
    """On this system the folders change places: what a listing sees at any moment is one whole version."""
    found = output(tmp_path)
    put(found, Chunk("s", "", OLD, 0, 10))
    put(found, Chunk("s", "", NEW, 0, 10, staged=True))
    one, other = tmp_path / "out/_staging" / S, tmp_path / "out/data" / S
    assert levit_batch.table.output._exchange(str(one), str(other))
    assert [p.name.split(".")[1] for p in other.iterdir()] == [NEW] and [
        p.name.split(".")[1] for p in one.iterdir()
    ] == [OLD]


@pytest.mark.parametrize("links", [True, False])
def test_valid_files_join_the_new_set(tmp_path, monkeypatch, links):
    found = output(tmp_path)
    put(found, Chunk("s", "", OLD, 0, 10), b"keep")
    put(found, Chunk("s", "", OLD, 10, 15), b"part")
    put(found, Chunk("s", "", OLD, 10, 20, staged=True), b"whole")
    if not links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(errno.EPERM, "no links here")))
    found.publish(S, frozenset([file(0, 10, OLD), file(10, 20, OLD)]))
    assert tree(tmp_path) == [f"data/{S}/{file(0, 10, OLD)}", f"data/{S}/{file(10, 20, OLD)}"]


def test_a_shard_replaced_by_nothing_leaves_no_folder(tmp_path):
    found = output(tmp_path)
    put(found, Chunk("s", "", OLD, 0, 10))
    found.publish(S, frozenset())
    assert tree(tmp_path) == [] and not (tmp_path / "out/data").exists()


def test_overwrite_deletes_only_what_this_tool_wrote(tmp_path):
    found = output(tmp_path)
    put(found, Chunk("s", "", OLD, 0, 10))
    found.write_json("job.json", {})
    found.write_json("runs/20260101T000000Z.json", {})
    (tmp_path / f"out/data/{S}/.000000000-000000009.00000000.parquet.4194305.0123abcd.tmp").write_bytes(b"half")
    for name in ("notes.txt", f"data/{S}/mine.parquet", "data/extra.csv"):
        (tmp_path / "out" / name).write_bytes(b"mine")
    found.delete(found.own_files())
    assert tree(tmp_path) == ["data/extra.csv", f"data/{S}/mine.parquet", "notes.txt"]


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
