"""What footers said is asked for once: of new files only, on every kind of storage, and read again where it was lost."""

import os
import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import SourceError
from levit_batch.sources import footers
from levit_batch.sources.footers import Footers
from levit_batch.storage.place import place
from tests.support.shards import open_at, pictures, table, write_arrow, write_ipc, write_parquet, write_tars


@pytest.fixture(autouse=True)
def any_age(request, monkeypatch):
    """Files of a moment ago are kept, too, but for the test that is about them."""
    if "young" not in request.node.name:
        monkeypatch.setattr(footers, "SETTLED", 0)


def listed(at: str, path, whole: bool = True, **options) -> list:
    """The shards of a night: its footers kept at `at`, from which it takes what is known."""
    source = open_at(path, **options)
    source.footers = Footers(place(at))
    shards = list(source.shards())
    source.footers.save(whole)
    return shards


def spoil(file: Path) -> None:
    """Make `file` unreadable without changing what a listing says of it."""
    facts = file.stat()
    file.write_bytes(b"x" * facts.st_size)
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))


FORMS = {"parquet": (write_parquet, {}), "tars": (write_tars, {"type": "webdataset"})}


@pytest.mark.parametrize("form", FORMS)
def test_a_second_night_on_a_store_opens_the_first_file_and_new_ones(s3, tmp_path, form):
    write, options = FORMS[form]
    url, at = s3.put(write(tmp_path / "in", pictures()), f"footers {form}"), f"s3://pictures/kept {form}/_shards.parquet"
    first = listed(at, url, **options)
    names = [shard.name for shard in first]
    s3.opened()
    assert listed(at, url, **options) == first == list(open_at(url, **options).shards())
    s3.opened()
    assert listed(at, url, **options) == first
    assert s3.opened() == {f"footers {form}/{names[0]}", f"kept {form}/_shards.parquet"}
    tonight = write(tmp_path / "tonight", pictures()[:9], shards=2)  # one that there was, of another size, and a new one
    (new, changed) = sorted(tonight.iterdir())
    new.rename(new := tonight / f"z{new.suffix}")
    changed.rename(tonight / names[1])
    s3.put(tonight, f"footers {form}")
    s3.opened()
    again = listed(at, url, **options)
    assert [shard.name for shard in again] == [*names, new.name]
    assert again[:3:2] == first[::2] and again[1].version != first[1].version
    assert s3.opened() == {f"footers {form}/{name}" for name in (names[0], names[1], new.name)} | {f"kept {form}/_shards.parquet"}


def test_a_new_commit_on_the_hub_reads_new_footers_only(hub, tmp_path):
    data = hub.folder / "datasets/org/pics/data"
    write_parquet(data, pictures())
    options = {"path": "org/pics", "type": "huggingface"}
    first = listed(str(tmp_path / "kept"), **options)
    pq.write_table(table(pictures()[:5]), data / "train-00003-of-00003.parquet")
    hub.reset()
    again = listed(str(tmp_path / "kept"), **options)
    assert [(s.name, s.version, s.rows, s.groups) for s in again[:3]] == [(s.name, s.version, s.rows, s.groups) for s in first]
    assert again[3].rows == 5 and again[0].url != first[0].url
    read = {request.path.partition("/data/")[2] for request in hub.requests if "/data/" in request.path}
    assert read == {first[0].name.removeprefix("data/"), "train-00003-of-00003.parquet"}


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_what_is_known_on_a_disk_is_not_opened(tmp_path, form):
    folder, options = tmp_path / "in", {"type": form}
    write_parquet(folder, pictures()) if form == "parquet" else write_arrow(folder, pictures())
    write_ipc(folder / "b.arrow", table(pictures()))
    first = listed(str(tmp_path / "kept"), folder, **options)
    spoil(sorted(folder.glob("*.arrow" if form == "arrow" else "*.parquet"))[-1])
    assert listed(str(tmp_path / "kept"), folder, **options) == first
    with pytest.raises(SourceError, match="not a readable"):
        list(open_at(folder, **options).shards())


@pytest.mark.parametrize("damage", ["lost", "empty", "noise", "cut short", "another table"])
def test_a_table_that_is_lost_or_damaged_is_made_anew(tmp_path, damage):
    folder, kept = write_parquet(tmp_path / "in", pictures()), tmp_path / "kept"
    first = listed(str(kept), folder)
    good = kept.read_bytes()
    if damage == "lost":
        kept.unlink()
    elif damage == "another table":
        pq.write_table(pa.table({"file": [1]}), kept)
    else:
        kept.write_bytes({"empty": b"", "noise": os.urandom(3000), "cut short": good[: len(good) // 2]}[damage])
    assert listed(str(kept), folder) == first and kept.read_bytes() == good


def test_it_is_written_only_when_something_is_new_and_forgets_what_is_gone(tmp_path):
    folder, kept = write_parquet(tmp_path / "in", pictures()), tmp_path / "kept"
    first = listed(str(kept), folder)
    kept.chmod(0o444)
    written = kept.stat().st_mtime_ns
    assert listed(str(kept), folder) == first and kept.stat().st_mtime_ns == written
    (folder / first[1].name).unlink()
    pq.write_table(table(pictures()[:5]), folder / "z.parquet")
    listed(str(kept), folder, whole=False)
    assert pq.read_metadata(kept).num_rows == 4
    pq.write_table(table(pictures()[:6]), folder / "z.parquet")
    listed(str(kept), folder)
    assert pq.read_metadata(kept).num_rows == 3


def test_a_young_file_is_read_again(tmp_path):
    folder, kept = write_parquet(tmp_path / "in", pictures()), tmp_path / "kept"
    old = folder / "train-00001-of-00003.parquet"
    os.utime(old, (1_700_000_000, 1_700_000_000))
    first = listed(str(kept), folder)
    assert pq.read_metadata(kept).num_rows == 1
    spoil(old)
    assert listed(str(kept), folder) == first


def test_columns_that_do_not_do_are_named_from_what_is_known(tmp_path):
    folder, kept = write_parquet(tmp_path / "in", pictures()), tmp_path / "kept"
    pq.write_table(table(pictures()).drop_columns(["caption"]), folder / "z.parquet")
    assert len(listed(str(kept), folder)) == 4
    spoil(folder / "z.parquet")
    with pytest.raises(SourceError, match="z.parquet: source.keep_columns: there is no column caption"):
        listed(str(kept), folder, keep_columns=["caption"])


def test_it_holds_no_address_and_does_not_travel(tmp_path):
    folder, kept = write_parquet(tmp_path / "a secret", pictures()), tmp_path / "kept"
    source = open_at(folder)
    source.footers = Footers(place(str(kept)))
    assert len(list(source.shards())) == 3
    source.footers.save(whole=True)
    assert b"secret" not in kept.read_bytes() and "secret" not in str(pq.read_table(kept).to_pydict())
    sent = pickle.dumps(source)
    assert b"footers" not in sent and len(list(pickle.loads(sent).shards())) == 3
