"""The rows of an output in order, whole files where they are small, part by part where they are large."""

import os
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import OutputError
from levit_batch.table.compact import compact
from levit_batch.table.output import written_of
from levit_batch.table.read import require_files
from levit_batch.table.scan import is_large, scan, scan_files
from tests.support.outputs import make_output


def rows(tables):
    return pa.concat_tables([table.replace_schema_metadata() for table in tables]).combine_chunks()


def test_large_files_come_in_parts_between_small_ones(tmp_path, monkeypatch):
    made = make_output(tmp_path)
    whole = rows(scan(made.output))
    compact(made.output, lambda: None, rows=32)  # of 40 rows of a shard: 32 and 8
    monkeypatch.setattr("levit_batch.table.scan.ROW_GROUP_ROWS", 16)
    monkeypatch.setattr("levit_batch.table.scan.PART_ROWS", 15)
    parts = list(scan_files(require_files(made.output)))
    assert [table.num_rows for _, table in parts] == [15, 15, 2, 8] * 3
    assert rows(table for _, table in parts).equals(whole)
    assert [(file.written.first, is_large(file)) for file, _ in parts[2:4]] == [(0, True), (32, False)]
    (narrow, *_) = scan(made.output, ["image.path", "label", "no such column"])
    assert narrow.schema.names == ["image.path", "label"] and narrow.num_rows == 15


def test_a_file_of_unknown_length_without_rows_still_has_its_columns(tmp_path):
    made = make_output(tmp_path, shards=1)
    file = require_files(made.output)[0]
    end = file.written.name.replace("000000015", "end")
    for other in (made.path / "data" / file.folder).iterdir():
        if other.name != file.written.name:
            other.unlink()
    empty = pq.read_table(file.place.path, partitioning=None).slice(0, 0)
    os.rename(file.place.path, made.path / "data" / file.folder / end)
    pq.write_table(empty, made.path / "data" / file.folder / end)
    (table,) = scan(made.output, ["shard", "label"])
    assert table.num_rows == 0 and table.schema.names == ["shard", "label"]


@pytest.mark.parametrize("name", ["000000000-000000015", "000000000-end"])
def test_a_file_that_is_gone_or_damaged_is_named(tmp_path, name):
    file = require_files(make_output(tmp_path, shards=1).output)[0]
    written = written_of(f"{name}.{file.written.version}.parquet")
    file = replace(file, written=written, place=replace(file.place, url=f"OUT/{written.name}"))
    assert is_large(file) == name.endswith("end")
    with open(file.place.path, "r+b") as damaged:
        damaged.truncate(100)
    with pytest.raises(OutputError, match=f"OUT/{name}.*cannot be read"):
        list(scan_files([file]))
