import os
import re
from pathlib import Path

import pytest
from pyarrow import fs

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


def test_empty_folders_of_ours_go_and_no_others(tmp_path):
    found = output(tmp_path)
    for folder in ("_swap/a-1", "_staging/a", "_attempts/a", "data/a", f"data/{S}", f"data/{T}", "_staging/b/c"):
        (tmp_path / "out" / folder).mkdir(parents=True)
    (tmp_path / "out/_staging/a/mine").write_bytes(b"mine")
    found.tidy([S])
    assert (tmp_path / f"out/data/{T}").exists() and not (tmp_path / f"out/data/{S}").exists()
    found.tidy()
    assert sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*")) == [
        "_staging", "_staging/a", "_staging/a/mine", "data", "data/a"
    ]  # fmt: skip


@pytest.mark.parametrize("store", [False, True])
def test_the_mark_of_another_run_stays(tmp_path, store):
    """One that was taken for dead says that it may have changed the table, while the one beside it measures."""
    found = output(tmp_path, store=store)
    assert found.marked() is None
    own = found.mark()
    found.unmark(own)
    assert found.marked() is None
    own, others = found.mark(), found.mark()
    found.unmark(own)
    assert own != others == found.marked()
    found.unmark(None)
    assert found.marked() == others


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
