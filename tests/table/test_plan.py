import os
from dataclasses import replace

import pyarrow as pa
import pytest

from levit_batch.errors import OutputError
from levit_batch.job.chunks import Chunk, Shard, plan_chunks
from levit_batch.job.config import OutputConfig
from levit_batch.table.attempts import Attempts
from levit_batch.table.footer import footer
from levit_batch.table.manifest import Manifest, as_table, entry, write_manifest
from levit_batch.table.output import Output, folder_of
from levit_batch.table.plan import make_plan
from levit_batch.table.publish import publish as publish_folders
from levit_batch.table.publish import publishable
from levit_batch.table.replace import clear_staged
from levit_batch.table.stats import NONE
from levit_batch.table.write import serialise

A = Shard("a", "a", "aaaaaaaa", 300, (100, 100, 100))
B = Shard("b", "b", "bbbbbbbb", 150, (100, 50))
CHUNK_ROWS = 100


@pytest.fixture
def output(tmp_path):
    return Output(OutputConfig(path=str(tmp_path)))


def plan(output, shards, limit=None, together=False):
    listed = []
    asked = (listed.append(shard) or shard for shard in shards)
    chunks = list(plan_chunks(asked, CHUNK_ROWS, limit, lambda shard, most: min(most, 300)))
    return make_plan(chunks, output, limit, listed, together)


def label(output, chunks):
    for chunk in chunks:
        output.chunk_place(chunk).write_bytes(b"rows")


def ranges(chunks):
    return [(chunk.shard, chunk.first, chunk.stop, chunk.staged) for chunk in chunks]


def publish(progress, output, failed=(), require=lambda: None):
    """Whether all that is to be replaced was."""
    ready = publishable(progress, set(failed))
    publish_folders(output, {folder: one.names for folder, one in ready.items()}, require)
    for folder, one in ready.items():
        clear_staged(output, folder, one.names)
    return len(ready) == len(progress.replacements)


def visible(output):
    names = {folder_of(name): name for name in ("a", "b", "t.tar")}
    written = output.written()
    return sorted((names[folder], f.first, f.stop, f.version[0]) for folder in written for f in written[folder])


def test_a_fresh_output(output):
    progress = plan(output, [A, B])
    assert (len(progress.pending), len(progress.done), progress.rows, progress.new) == (5, 0, 450, ["a", "b"])
    assert not any(chunk.staged for chunk in progress.pending)


def test_a_killed_run_goes_on_with_what_is_missing(output):
    label(output, plan(output, [A, B]).pending[1:4])
    progress = plan(output, [A, B])
    assert ranges(progress.pending) == [("a", 0, 100, False), ("b", 100, 150, False)]
    assert progress.done_rows == 300 and ranges(progress.done)[0] == ("a", 100, 200, False)


def test_a_grown_source_labels_only_what_is_new(output):
    label(output, plan(output, [A]).pending)
    progress = plan(output, [A, B])
    assert [chunk.shard for chunk in progress.pending] == ["b", "b"] and progress.new == ["b"]


def test_a_changed_shard_is_staged_and_published_as_a_whole(output):
    label(output, plan(output, [A, B]).pending)
    changed = replace(A, version="cccccccc", rows=250, groups=(100, 100, 50))
    progress = plan(output, [changed, B])
    assert progress.changed == ["a"] and all(chunk.staged for chunk in progress.pending) and len(progress.pending) == 3
    label(output, progress.pending[:2])
    with pytest.raises(OutputError, match="not there any more"):
        publish(progress, output)
    assert [row for row in visible(output) if row[0] == "a"] == [
        ("a", 0, 100, "a"),
        ("a", 100, 200, "a"),
        ("a", 200, 300, "a"),
    ]
    again = plan(output, [changed, B])
    assert ranges(again.pending) == [("a", 200, 250, True)], "staged chunks are done"
    label(output, again.pending)
    publish(again, output)
    assert [row for row in visible(output) if row[0] == "a"] == [
        ("a", 0, 100, "c"),
        ("a", 100, 200, "c"),
        ("a", 200, 250, "c"),
    ]
    last = plan(output, [changed, B])
    assert not last.pending and not last.replacements and not last.garbage


def test_a_shard_that_changes_again_drops_what_was_staged(output):
    label(output, plan(output, [A]).pending)
    label(output, plan(output, [replace(A, version="cccccccc")]).pending[:1])
    progress = plan(output, [replace(A, version="dddddddd")])
    assert len(progress.pending) == 3 and [place.path.split(".")[-2] for place in progress.garbage] == ["cccccccc"]


def test_a_shard_that_went_is_reported_and_kept(output):
    label(output, plan(output, [A, B]).pending)
    progress = plan(output, [B])
    assert progress.vanished == [folder_of("a")] and not progress.garbage and not progress.pending


def test_a_limited_run_then_more(output):
    limited = plan(output, [A, B], limit=120)
    assert ranges(limited.pending) == [("a", 0, 100, False), ("a", 100, 120, False)]
    label(output, limited.pending)
    assert not plan(output, [A, B], limit=120).pending
    progress = plan(output, [A, B])
    assert ranges(progress.pending) == [
        ("a", 120, 200, False),
        ("a", 200, 300, False),
        ("b", 0, 100, False),
        ("b", 100, 150, False),
    ], "what the limit cut off is labelled, and nothing twice"
    label(output, progress.pending)
    assert not progress.replacements
    assert not plan(output, [A, B]).pending
    assert not plan(output, [A, B], limit=120).pending, "more is there than the limit asks for"
    assert len(visible(output)) == 6


def test_a_limit_does_not_publish_a_cut_new_version_over_a_whole_old_one(output):
    label(output, plan(output, [A]).pending)
    changed = replace(A, version="cccccccc")
    progress = plan(output, [changed], limit=120)
    label(output, progress.pending)
    assert not publish(progress, output)
    assert [row[3] for row in visible(output)] == ["a", "a", "a"]
    rest = plan(output, [changed])
    assert ranges(rest.pending) == [("a", 120, 200, True), ("a", 200, 300, True)]


def test_a_limit_that_ends_where_the_old_version_ended_does_not_publish_either(output):
    label(output, plan(output, [A]).pending)
    longer = replace(A, version="cccccccc", rows=310, groups=(100, 100, 110))
    progress = plan(output, [longer], limit=300)
    label(output, progress.pending)
    assert not publish(progress, output) and {row[3] for row in visible(output)} == {"a"}


def test_a_publish_that_was_cut_short_is_finished(output):
    """On an object store: the old files are gone, some of the new ones copied, all of them still staged."""
    label(output, plan(output, [A]).pending)
    changed = replace(A, version="cccccccc")
    progress = plan(output, [changed])
    label(output, progress.pending)
    for shard_file in output.place.join("data", folder_of("a")).list():
        output.place.filesystem.delete_file(shard_file.path)
    label(output, [replace(progress.pending[1], staged=False)])
    again = plan(output, [changed])
    assert not again.pending
    publish(again, output)
    assert [row[3] for row in visible(output)] == ["c", "c", "c"]


def test_a_shard_of_unknown_length_is_done_when_its_file_is_there(output):
    tar = Shard("t.tar", "t", "eeeeeeee", None)
    label(output, plan(output, [tar]).pending)
    assert not plan(output, [tar]).pending
    assert plan(output, [replace(tar, version="ffffffff")]).changed == ["t.tar"]


def test_finished_rows_that_only_reading_counts_are_known(output):
    """The files' footers tell; the manifest too, without reading them."""
    tar, at = Shard("t.tar", "t", "eeeeeeee", None), "data/" + output.chunk_name(Chunk("t.tar", "t", "eeeeeeee", 0, None))
    record = {"shard": "t.tar", "first": 0, "stop": 160, "rows": 160, "errors": {}, "stats": NONE}
    output.write(at, serialise(pa.table({"row": [0]}), "parquet", footer("f" * 64, record)))
    other = replace(tar, name="u.tar")
    progress = plan(output, [tar, A, other])
    assert (progress.rows, progress.done_rows, len(progress.pending)) == (460, 160, 4)
    write_manifest(output, Manifest(as_table([entry(at, "eeeeeeee", record | {"rows": 170}, 1)]), NONE))
    assert plan(output, [tar]).done_rows == 170
    limited = plan(output, [tar], limit=50)
    assert (limited.rows, limited.done_rows, limited.pending) == (50, 50, [])


def test_files_behind_a_limit_are_not_of_the_plan(output):
    label(output, plan(output, [A]).pending)
    progress = plan(output, [A], limit=50)
    assert (progress.rows, progress.done_rows, progress.chunks) == (50, 50, 1) and not progress.pending
    assert not progress.replacements and len(visible(output)) == 3


def test_a_limit_after_a_whole_run_labels_nothing(output):
    tar = Shard("t.tar", "t", "eeeeeeee", None)
    label(output, plan(output, [tar]).pending)
    assert not plan(output, [tar], limit=200).pending and not plan(output, [tar], limit=1000).pending
    assert not plan(output, [tar]).pending and not plan(output, [tar]).replacements
    assert visible(output) == [("t.tar", 0, None, "e")]


def test_a_whole_run_after_a_limit_labels_the_rest(output):
    tar = Shard("t.tar", "t", "eeeeeeee", None)
    label(output, plan(output, [tar], limit=200).pending)
    assert visible(output) == [("t.tar", 0, 200, "e")]
    assert ranges(plan(output, [tar]).pending) == [("t.tar", 200, None, False)]
    assert plan(output, [replace(tar, name="b"), tar], limit=400).pending == [Chunk("b", "t", "eeeeeeee", 0, None)]


def test_files_of_one_version_that_overlap_are_mended(output):
    """As two runs side by side with different limits leave them."""
    for first, stop in ((0, 100), (100, 150), (120, 200), (130, 140), (200, 300)):
        label(output, [Chunk("a", "a", A.version, first, stop)])
    progress = plan(output, [A])
    assert ranges(progress.pending) == [("a", 150, 200, True)] and progress.done_rows == 250
    label(output, progress.pending)
    assert publish(progress, output)
    assert [row[1:3] for row in visible(output)] == [(0, 100), (100, 150), (150, 200), (200, 300)]
    last = plan(output, [A])
    assert not (last.pending or last.replacements or last.garbage)


def test_a_shard_that_becomes_empty_is_replaced_by_nothing(output):
    label(output, plan(output, [A, B]).pending)
    progress = plan(output, [replace(A, version="cccccccc", rows=0, groups=()), B])
    assert progress.changed == ["a"] and not progress.vanished and not progress.pending
    assert publish(progress, output)
    assert {row[0] for row in visible(output)} == {"b"}


def test_where_rows_move_between_shards_all_appears_in_one_go(output):
    label(output, plan(output, [A]).pending)
    shorter = replace(A, version="cccccccc", rows=150, groups=(100, 50))
    progress = plan(output, [shorter, B], together=True)
    assert all(chunk.staged for chunk in progress.pending) and len(progress.replacements) == 2
    label(output, progress.pending[:3])
    assert not publish(progress, output, {"b"}), "a chunk of b failed: nothing moves"
    assert {row[3] for row in visible(output)} == {"a"}
    again = plan(output, [shorter, B], together=True)
    label(output, again.pending)
    assert len(again.pending) == 1 and publish(again, output)
    assert [row[:3] for row in visible(output)] == [("a", 0, 100), ("a", 100, 150), ("b", 0, 100), ("b", 100, 150)]


def test_where_rows_move_between_shards_a_limit_publishes_nothing(output):
    label(output, plan(output, [A]).pending)
    shorter = replace(A, version="cccccccc", rows=100, groups=(100,))
    progress = plan(output, [shorter, B], limit=150, together=True)
    label(output, progress.pending)
    assert not publish(progress, output) and {row[3] for row in visible(output)} == {"a"}


def test_only_who_holds_the_output_replaces_or_retires(output):
    def lost():
        raise OutputError("another run")

    label(output, plan(output, [A, B]).pending)
    progress = plan(output, [replace(A, version="cccccccc")])
    label(output, progress.pending)
    before = visible(output)
    gone = dict.fromkeys(progress.vanished, frozenset())
    for change in (lambda: publish(progress, output, require=lost), lambda: publish_folders(output, gone, lost)):
        with pytest.raises(OutputError, match="another run"):
            change()
    assert visible(output) == before
    publish_folders(output, gone, lambda: None)
    assert {row[0] for row in visible(output)} == {"a"}


def test_temporary_files_of_dead_writers_are_garbage(output, tmp_path):
    label(output, plan(output, [A]).pending)
    (tmp_path / f"data/{folder_of('a')}/.000000000-000000099.aaaaaaaa.parquet.4194305.0123abcd.tmp").write_bytes(b"half")
    (tmp_path / f"data/{folder_of('a')}/.000000000-000000099.aaaaaaaa.parquet.{os.getpid()}.0123abcd.tmp").write_bytes(b"half")
    (tmp_path / f"_attempts/{folder_of('a')}").mkdir(parents=True)
    (tmp_path / f"_attempts/{folder_of('a')}/.000000000-000000099.aaaaaaaa.parquet.4194306.0123abcd.tmp").write_bytes(b"half")
    assert [place.path.split(".")[-3] for place in plan(output, [A]).garbage] == ["4194305", "4194306"]


def test_markers_of_attempts_at_finished_chunks_are_garbage(output):
    chunks = plan(output, [A]).pending
    attempts = Attempts(output, "run")
    for chunk in chunks[:2]:
        attempts.begin(chunk)
    label(output, chunks[:1])  # and the process died before it could take the marker away
    assert [file.path for file in plan(output, [A]).garbage] == [attempts._place(chunks[0]).path]


def test_chunks_that_come_in_another_order_than_the_shards_are_not_lost(output):
    """A caller's mistake would leave rows out in silence."""
    with pytest.raises(AssertionError, match="chunks of a"):
        make_plan(plan_chunks([B, A], CHUNK_ROWS), output, None, [A, B])
