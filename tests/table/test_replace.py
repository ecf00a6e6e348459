import errno
import os

import pytest

import levit_batch.table.replace
from levit_batch.errors import OutputError
from levit_batch.job.chunks import Chunk
from levit_batch.storage.place import Place
from levit_batch.table.replace import clear_staged, replace_shard
from tests.table.test_output import NEW, OLD, S, T, output, put, tree


def publish(found, folder, names):
    replace_shard(found, folder, names)
    clear_staged(found, folder, names)


def file(first, stop, version):
    return f"{first:09d}-{stop - 1:09d}.{version}.parquet"


@pytest.mark.parametrize("how", ["exchange", "rename", "store"])
def test_publish_replaces_a_whole_shard(tmp_path, monkeypatch, how):
    if how == "rename":
        monkeypatch.setattr(levit_batch.table.replace, "_exchange", lambda one, other: False)
    found = output(tmp_path, store=how == "store")
    for chunk in (Chunk("s", "", OLD, 0, 10), Chunk("s", "", OLD, 10, 20), Chunk("t", "", OLD, 0, 5)):
        put(found, chunk, b"old")
    put(found, Chunk("s", "", NEW, 0, 10, staged=True), b"new")
    (tmp_path / f"out/data/{S}/mine.csv").write_text("mine")
    publish(found, S, frozenset([file(0, 10, NEW)]))
    assert tree(tmp_path) == sorted([f"data/{S}/{file(0, 10, NEW)}", f"data/{S}/mine.csv", f"data/{T}/{file(0, 5, OLD)}"])
    assert (tmp_path / f"out/data/{S}/{file(0, 10, NEW)}").read_bytes() == b"new"
    assert how == "store" or not (tmp_path / "out/_staging").exists()
    publish(found, S, frozenset([file(0, 10, NEW)]))  # another run publishes the same
    assert f"data/{S}/{file(0, 10, NEW)}" in tree(tmp_path)


@pytest.mark.parametrize("store", [False, True])
def test_what_is_staged_of_the_next_version_stays(tmp_path, store):
    found, later = output(tmp_path, store=store), Chunk("s", "", "c" * 8, 0, 5, staged=True)
    put(found, Chunk("s", "", OLD, 0, 10), b"old")
    put(found, Chunk("s", "", NEW, 0, 10, staged=True), b"new")
    put(found, later, b"a night that was broken off")
    publish(found, S, frozenset([file(0, 10, NEW)]))
    assert tree(tmp_path) == [f"_staging/{S}/{file(0, 5, 'c' * 8)}", f"data/{S}/{file(0, 10, NEW)}"]


def test_half_a_read_is_not_copied_as_all_of_it(tmp_path, monkeypatch):
    """Where folders cannot change places; the staged file stays for the next time."""
    monkeypatch.setattr(levit_batch.table.replace, "_exchange", lambda one, other: False)
    found = output(tmp_path)
    put(found, Chunk("s", "", OLD, 0, 10), b"old")
    put(found, Chunk("s", "", NEW, 0, 10, staged=True), b"all of the new")
    read = Place.read_bytes
    with monkeypatch.context() as patch, pytest.raises(OutputError, match="7 of 14 bytes could be read"):
        patch.setattr(Place, "read_bytes", lambda at: read(at)[:7])
        publish(found, S, frozenset([file(0, 10, NEW)]))
    publish(found, S, frozenset([file(0, 10, NEW)]))
    assert (tmp_path / f"out/data/{S}/{file(0, 10, NEW)}").read_bytes() == b"all of the new"


@pytest.mark.parametrize("how", ["exchange", "rename", "store"])
def test_publish_touches_nothing_when_a_staged_file_is_gone(tmp_path, monkeypatch, how):
    if how == "rename":
        monkeypatch.setattr(levit_batch.table.replace, "_exchange", lambda one, other: False)
    found = output(tmp_path, store=how == "store")
    put(found, Chunk("s", "", OLD, 0, 20), b"old")
    put(found, Chunk("s", "", NEW, 0, 10, staged=True), b"new")
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="1 of 2 files of .* not there any more"):
        publish(found, S, frozenset([file(0, 10, NEW), file(10, 20, NEW)]))
    assert tree(tmp_path) == before


def test_an_exchange_that_fails_for_another_reason_touches_nothing(tmp_path, monkeypatch):
    found = output(tmp_path)
    put(found, Chunk("s", "", OLD, 0, 10))
    put(found, Chunk("s", "", NEW, 0, 10, staged=True))
    before = tree(tmp_path)

    def denied(one, other):
        raise PermissionError(errno.EACCES, "Permission denied", one)

    monkeypatch.setattr(levit_batch.table.replace, "_exchange", denied)
    with pytest.raises(OutputError, match="cannot be replaced: .*Permission denied"):
        publish(found, S, frozenset([file(0, 10, NEW)]))
    assert tree(tmp_path) == before


def test_two_runs_that_exchange_the_same_folders_lose_nothing(tmp_path, monkeypatch):
    """The other one changes them back right after: the new files are still there, staged, and the next run goes on."""
    found, exchange = output(tmp_path), levit_batch.table.replace._exchange
    put(found, Chunk("s", "", OLD, 0, 10))
    put(found, Chunk("s", "", NEW, 0, 10, staged=True))
    monkeypatch.setattr(levit_batch.table.replace, "_exchange", lambda *two: exchange(*two) and exchange(*two))
    with pytest.raises(OutputError, match="another run changed this output"):
        publish(found, S, frozenset([file(0, 10, NEW)]))
    assert f"_staging/{S}/{file(0, 10, NEW)}" in tree(tmp_path)
    monkeypatch.setattr(levit_batch.table.replace, "_exchange", exchange)
    publish(found, S, frozenset([file(0, 10, NEW)]))
    assert tree(tmp_path) == [f"data/{S}/{file(0, 10, NEW)}"]


def test_publish_in_one_step_never_shows_both_or_neither(tmp_path):
    """On this system the folders change places: what a listing sees at any moment is one whole version."""
    found = output(tmp_path)
    put(found, Chunk("s", "", OLD, 0, 10))
    put(found, Chunk("s", "", NEW, 0, 10, staged=True))
    one, other = tmp_path / "out/_staging" / S, tmp_path / "out/data" / S
    assert levit_batch.table.replace._exchange(str(one), str(other))
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
    publish(found, S, frozenset([file(0, 10, OLD), file(10, 20, OLD)]))
    assert tree(tmp_path) == [f"data/{S}/{file(0, 10, OLD)}", f"data/{S}/{file(10, 20, OLD)}"]


def test_a_shard_replaced_by_nothing_leaves_no_folder(tmp_path):
    found = output(tmp_path)
    put(found, Chunk("s", "", OLD, 0, 10))
    publish(found, S, frozenset())
    assert tree(tmp_path) == [] and not (tmp_path / "out/data").exists()


def test_a_swap_that_another_run_emptied_replaces_nothing(tmp_path, monkeypatch):
    found, exchange = output(tmp_path), levit_batch.table.replace._exchange
    put(found, Chunk("s", "", OLD, 0, 10))
    put(found, Chunk("s", "", NEW, 0, 10, staged=True))
    before = tree(tmp_path)

    def tidied(swap, live):
        for name in os.listdir(swap):
            os.unlink(os.path.join(swap, name))
        monkeypatch.setattr(levit_batch.table.replace, "_exchange", exchange)
        return exchange(swap, live)

    monkeypatch.setattr(levit_batch.table.replace, "_exchange", tidied)
    with pytest.raises(OutputError, match="another run changed this output"):
        replace_shard(found, S, frozenset([file(0, 10, NEW)]))
    assert tree(tmp_path) == before
