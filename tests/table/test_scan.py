"""The rows of an output in order, whole files where they are small, part by part where they are large."""

import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pyarrow import fs

from levit_batch.errors import OutputError
from levit_batch.storage.place import Place
from levit_batch.table.compact import compact
from levit_batch.table.output import written_of
from levit_batch.table.read import ChunkFile, read_file, require_files
from levit_batch.table.scan import PART_ROWS, is_large, scan, scan_files
from levit_batch.table.write import serialise
from tests.support.outputs import make_output

FORMATS = ("parquet", "arrow")


def rows(tables):
    return pa.concat_tables([table.replace_schema_metadata() for table in tables]).combine_chunks()


def on_a_store(file):
    """The same file, in a file system that maps no file into memory."""
    folder, _, name = file.place.path.rpartition("/")
    return replace(file, place=Place(fs.SubTreeFileSystem(folder, fs.LocalFileSystem()), name, f"OUT/{name}"))


def written(folder, count, batches, format):
    """A file of `count` rows: in a stream, as batches of these lengths."""
    row = pa.chunked_array([range(sum(batches[:i]), sum(batches[: i + 1])) for i in range(len(batches))])
    return put(folder, pa.table({"row": row, "twice": pc.multiply(row, 2)}), format)


def put(folder, table, format):
    count = table.num_rows
    path = folder / f"000000000-{count - 1:09d}.00000000.{format}"
    path.write_bytes(serialise(table, format))
    return ChunkFile("folder", written_of(path.name), Place(fs.LocalFileSystem(), str(path), str(path)))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("where", [lambda file: file, on_a_store])
def test_files_longer_than_a_part_come_in_parts_between_others(tmp_path, monkeypatch, format, where):
    made = make_output(tmp_path, format=format)
    whole = rows(scan(made.output))
    compact(made.output, lambda: None, rows=32)  # of 40 rows of a shard: 32, in a stream batches of 16, 4 and 12, and 8
    monkeypatch.setattr("levit_batch.table.scan.PART_ROWS", 15)
    parts = list(scan_files([where(file) for file in require_files(made.output)]))
    lengths = {"parquet": [15, 15, 2, 8], "arrow": [15, 5, 12, 8]}[format]
    assert [table.num_rows for _, table in parts] == lengths * 3
    assert rows(table for _, table in parts).equals(whole)
    (narrow, *_) = scan(made.output, ["label", "image.path", "no such column"])
    assert narrow.schema.names == ["label", "image.path"] and narrow.num_rows == 15


@pytest.mark.parametrize(
    ("batches", "lengths"),
    [
        ([60_000], [8192] * 7 + [2656]),
        ([2048] * 29 + [608], [8192] * 7 + [2656]),
        ([3000] * 20, [6000] * 10),
        ([5, 59_995], [5] + [8192] * 7 + [2651]),
    ],
)
def test_a_stream_of_60_000_rows_comes_in_parts_however_long_its_batches_are(tmp_path, batches, lengths):
    file = written(tmp_path, 60_000, batches, "arrow")
    for at in (file, on_a_store(file)):
        parts = [table for _, table in scan_files([at], ["twice"])]
        assert [part.num_rows for part in parts] == lengths
        assert rows(parts).equals(rows([read_file(file, ["twice"])]))


@pytest.mark.parametrize("format", FORMATS)
def test_no_more_than_a_part_is_held_of_a_file_of_one_row_group(tmp_path, format):
    file = on_a_store(written(tmp_path, 60_000, [60_000], format))
    assert not is_large(file)
    assert max(table.num_rows for _, table in scan_files([file])) == PART_ROWS
    short = on_a_store(written(tmp_path, PART_ROWS, [5000, 3192], format))
    assert [table.num_rows for _, table in scan_files([short])] == [PART_ROWS], "whole"


def test_of_a_store_no_more_than_a_row_group_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr("levit_batch.table.write.ROW_GROUP_ROWS", 20_000)
    noise = pa.FixedSizeBinaryArray.from_buffers(pa.binary(64), 100_000, [None, pa.py_buffer(os.urandom(6_400_000))])
    file = on_a_store(put(tmp_path, pa.table({"noise": noise}), "parquet"))
    before, held, came = pa.total_allocated_bytes(), [], []
    for _, table in scan_files([file]):
        held.append(pa.total_allocated_bytes() - before)
        came.append(table.num_rows)
    assert max(held) < 4_000_000, "of 6.4 MB in five row groups"
    assert came == [8192, 8192, 3616] * 5


def test_a_stream_is_not_read_to_its_end_before_its_first_rows_are_used(tmp_path, monkeypatch):
    monkeypatch.setattr("levit_batch.table.scan.STREAM_BYTES", 4096)
    file = written(tmp_path, 60_000, [2048] * 29 + [608], "arrow")
    os.truncate(file.place.path, os.path.getsize(file.place.path) // 2)
    parts = scan_files([on_a_store(file)])
    assert [next(parts)[1].num_rows for _ in range(3)] == [PART_ROWS] * 3
    with pytest.raises(OutputError, match="OUT/.*cannot be read"):
        next(parts)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_unknown_length_without_rows_still_has_its_columns(tmp_path, format):
    made = make_output(tmp_path, shards=1, format=format)
    file = require_files(made.output)[0]
    end = file.written.name.replace("000000015", "end")
    for other in (made.path / "data" / file.folder).iterdir():
        if other.name != file.written.name:
            other.unlink()
    empty = read_file(file).slice(0, 0)
    os.rename(file.place.path, made.path / "data" / file.folder / end)
    (made.path / "data" / file.folder / end).write_bytes(serialise(empty, format))
    (table,) = scan(made.output, ["shard", "label"])
    assert table.num_rows == 0 and table.schema.names == ["shard", "label"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["000000000-000000015", "000000000-end"])
def test_a_file_that_is_gone_or_damaged_is_named(tmp_path, name, format):
    file = require_files(make_output(tmp_path, shards=1, format=format).output)[0]
    written = written_of(f"{name}.{file.written.version}.{format}")
    file = replace(file, written=written, place=replace(file.place, url=f"OUT/{written.name}"))
    assert is_large(file) == (name.endswith("end") and format == "parquet")
    with open(file.place.path, "r+b") as damaged:
        damaged.truncate(100)
    with pytest.raises(OutputError, match=f"OUT/{name}.*cannot be read"):
        list(scan_files([file]))
    os.unlink(file.place.path)
    with pytest.raises(OutputError, match=f"OUT/{name}.*cannot be read"):
        list(scan_files([file]))
