import json
import pickle
from decimal import Decimal

import datasets
import pyarrow as pa
import pytest

from levit_batch.errors import SourceError
from levit_batch.job.row import READ_ERROR
from tests.support.shards import CLASSES, dataset, expected, good, open_at, pictures, read_all, table, write_ipc

ARROW = {"type": "arrow", "target_column": "label", "keep_columns": ["caption"]}


def test_a_saved_dataset(tmp_path):
    dataset().save_to_disk(tmp_path / "d", num_shards=3)
    (tmp_path / "d" / "cache-0123.arrow").write_bytes(b"left behind by a map")
    source = pickle.loads(pickle.dumps(open_at(tmp_path / "d", **ARROW)))
    assert good(read_all(source)) == expected(pictures())
    assert source.target_names == CLASSES
    assert [shard.rows for shard in source.shards()] == [20, 20, 20]


def test_a_saved_dataset_dict_needs_a_split(tmp_path):
    splits = {"train": dataset(), "test": dataset(pictures()[:5])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "d")
    assert good(read_all(open_at(tmp_path / "d", split="test", **ARROW))) == expected(pictures()[:5])
    with pytest.raises(SourceError, match="choose of: train, test"):
        list(open_at(tmp_path / "d", **ARROW).shards())


def test_a_column_that_is_there_twice(tmp_path):
    numbers = pa.array(range(60))
    rows = table(pictures()).append_column("n", numbers).append_column("n", numbers)
    rows = rows.select([3, 4, 0, 1, 2])  # numbers first: their batches tell how many rows there are
    write_ipc(tmp_path / "a.arrow", rows)
    assert good(read_all(open_at(tmp_path, **ARROW))) == expected(pictures())
    with pytest.raises(SourceError, match="source.keep_columns: several columns are called n,"):
        list(open_at(tmp_path, type="arrow", keep_columns=["n"]).shards())


RUNS = pa.RunEndEncodedArray.from_arrays(pa.array([2, 40, 60], pa.int32()), pa.array(["a", None, "b"]))
REFUSED = [
    pa.array([pa.MonthDayNano([1, 2, 3])]), pa.array([[pa.MonthDayNano([1, 2, 3])]]), pa.nulls(1, pa.struct([])),
    pa.UnionArray.from_sparse(pa.array([0], pa.int8()), [pa.array([1])]), pa.nulls(1, pa.decimal128(10, -2)),
    pa.ListArray.from_arrays([0, 60], RUNS), pa.DictionaryArray.from_arrays(pa.array([0]), pa.array([{"a": 1}])),
    pa.array([{"a": [1]}], pa.struct([("a", pa.list_view(pa.int32()))])),
]  # fmt: skip


@pytest.mark.parametrize("column", REFUSED, ids=lambda column: str(column.type))
def test_a_type_that_is_not_written_is_refused_when_planned(tmp_path, column):
    write_ipc(tmp_path / "a.arrow", pa.table({"image": pa.nulls(1, pa.binary()), "x": column}))
    assert read_all(open_at(tmp_path, type="arrow")).num_rows == 1
    with pytest.raises(SourceError, match="source.keep_columns: x is .*too few readers know it; leave it out"):
        list(open_at(tmp_path, type="arrow", keep_columns=["x"]).shards())


def test_types_of_other_engines_are_kept_as_what_every_reader_opens(tmp_path):
    codes, names = pa.array([0, 1, None] * 20, pa.uint32()), pa.array(["x", "y"], pa.string_view())
    prices = pa.array([Decimal("1.25"), None] * 30, pa.decimal32(5, 2))
    rows = table(pictures()).append_column("runs", RUNS).append_column("prices", prices)
    rows = rows.append_column("codes", pa.DictionaryArray.from_arrays(codes, names))  # as polars writes a Categorical
    kept = ["runs", "prices", "codes"]
    write_ipc(tmp_path / "a.arrow", rows)
    source = open_at(tmp_path, type="arrow", keep_columns=kept)
    read = read_all(source)
    assert [read[name].to_pylist() for name in kept] == [rows[name].to_pylist() for name in kept]
    assert read.schema.field("runs").type == pa.string() and read.schema.field("prices").type == pa.decimal128(5, 2)
    assert read.schema.field("codes").type == pa.dictionary(pa.uint32(), pa.large_string())
    write_ipc(tmp_path / "b.arrow", rows.set_column(3, "runs", pa.array(["c"] * 60, pa.large_string())))
    both = read_all(open_at(tmp_path, type="arrow", keep_columns=kept))["runs"].to_pylist()
    assert both == rows["runs"].to_pylist() + ["c"] * 60


def test_single_files_globs_and_lists(tmp_path):
    write_ipc(tmp_path / "a.arrow", table(pictures()[:30]))
    write_ipc(tmp_path / "b.feather", table(pictures()[30:]), "stream")
    one, two = str(tmp_path / "a.arrow"), str(tmp_path / "b.feather")
    assert read_all(open_at(one, **ARROW)).num_rows == 30
    for path in ([one, two], f"{tmp_path}/*.*", f"{tmp_path}/{{a.arrow,b.feather}}"):
        assert good(read_all(open_at(path, **ARROW))) == expected(pictures())


def test_a_saved_dataset_with_indices_is_refused(tmp_path):
    dataset().save_to_disk(tmp_path / "d")
    state = json.loads((tmp_path / "d" / "state.json").read_text())
    (tmp_path / "d" / "state.json").write_text(json.dumps(state | {"_indices_data_files": [{"filename": "i.arrow"}]}))
    with pytest.raises(SourceError, match="flatten_indices"):
        list(open_at(tmp_path / "d", **ARROW).shards())


def test_offsets_that_point_nowhere_are_error_rows(tmp_path):
    rows = table(pictures()[:10]).select(["image", "label"])
    write_ipc(tmp_path / "a.arrow", rows, "file")
    data = bytearray((tmp_path / "a.arrow").read_bytes())
    lengths = [len(p.data) for p in pictures()[:9]]
    second = sum(lengths[:1]).to_bytes(4, "little") + sum(lengths[:2]).to_bytes(4, "little")
    at = data.index(second)
    data[at : at + 4] = (2**31 - 5).to_bytes(4, "little")
    (tmp_path / "a.arrow").write_bytes(data)
    errors = read_all(open_at(tmp_path, type="arrow"))[READ_ERROR].to_pylist()
    assert len(errors) == 10 and errors[9] is None
    assert all("record batch is damaged" in error for error in errors[:9])


def test_a_file_that_state_json_names_is_missing(tmp_path):
    dataset().save_to_disk(tmp_path / "d", num_shards=2)
    (tmp_path / "d" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(SourceError, match="data-00001-of-00002.arrow: state.json names this file"):
        list(open_at(tmp_path / "d", **ARROW).shards())


def test_a_path_that_is_not_utf8_costs_its_own_row(tmp_path):
    raw = [b"a.png", b"\xff.png", b"c.png"]
    paths = pa.Array.from_buffers(pa.string(), 3, pa.array(raw).buffers())
    write_ipc(tmp_path / "a.arrow", pa.table({"image": paths}))
    errors = read_all(open_at(tmp_path, type="arrow"))[READ_ERROR].to_pylist()
    assert [error.split(":")[0] for error in errors] == ["missing", "unreadable", "missing"]


def test_mixed_schemas(tmp_path):
    write_ipc(tmp_path / "a.arrow", table(pictures()[:9]))
    write_ipc(tmp_path / "c.arrow", table(pictures()).drop_columns(["image"]))
    with pytest.raises(SourceError, match="c.arrow: source.image_column: there is no column image"):
        list(open_at(tmp_path, **ARROW).shards())


def test_a_table_that_is_there_keeps_the_types_of_its_kept_columns(tmp_path):
    rows = table(pictures())
    write_ipc(tmp_path / "a.arrow", rows.append_column("n", pa.array([1] * 60, pa.int32())))
    source = open_at(tmp_path, type="arrow", keep_columns=["n"])
    source.before = pa.schema([("n", pa.int64())])
    assert read_all(source)["n"].type == pa.int64()
    source = open_at(tmp_path, type="arrow", keep_columns=["n"])
    source.before = pa.schema([("n", pa.int8())])
    with pytest.raises(SourceError, match="a.arrow: column n is int32 here and int8 in the table that is there"):
        list(source.shards())
