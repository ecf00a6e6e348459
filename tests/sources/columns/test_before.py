import json

import pyarrow as pa
import pytest

from levit_batch.sources.columns.before import as_before, differs, numbers_as_before

SCHEMA = pa.schema([("a", pa.int64()), ("s", pa.struct([("x", pa.int64()), ("y", pa.string())])), ("b", pa.string())])


def features(schema):
    return json.loads(schema.metadata[b"huggingface"])["info"]["features"]


def with_features(schema, **said):
    return schema.with_metadata({"huggingface": json.dumps({"info": {"features": said}}), "other": "stays"})


def test_kept_columns_keep_the_types_of_the_table_and_others_their_own():
    before = pa.schema([("a", pa.int32()), ("s.x", pa.int8()), ("gone", pa.int8())])
    like = as_before(SCHEMA, before)
    assert like.field("a").type == pa.int32() and like.field("b").type == pa.string() and like.names == SCHEMA.names
    assert like.field("s").type == pa.struct([("x", pa.int8()), ("y", pa.string())])


def test_a_column_whose_own_name_has_a_dot_is_that_column():
    schema = pa.schema([("s.x", pa.int64()), ("s", pa.struct([("x", pa.int64())]))])
    like = as_before(schema, pa.schema([("s.x", pa.int8())]))
    assert like.field(0).type == pa.int8() and like.field(1).type == schema.field(1).type


def test_what_is_said_of_a_column_goes_with_its_type():
    schema = with_features(SCHEMA, a={"dtype": "int64", "_type": "Value"}, b={"dtype": "string", "_type": "Value"})
    names = {"names": ["x", "y"], "_type": "ClassLabel"}
    same = as_before(schema, with_features(pa.schema([("a", pa.int64())]), a=names))
    assert features(same)["a"]["dtype"] == "int64"
    before = pa.schema([("a", pa.int32())])
    assert features(as_before(schema, with_features(before, a=names)))["a"] == names
    unknown = as_before(schema, before)
    assert list(features(unknown)) == ["b"] and unknown.metadata[b"other"] == b"stays"


@pytest.mark.parametrize(
    ("values", "kind", "then"),
    [([1, 2], pa.float64(), pa.float64()), ([1.0, None], pa.int64(), pa.int64()), ([1.5], pa.int64(), pa.float64()),
     ([2**53 + 1], pa.float64(), pa.int64()), ([1 / 3], pa.float32(), pa.float64()), (["1"], pa.int64(), pa.string())],
)  # fmt: skip
def test_guessed_numbers_take_the_types_of_the_table_where_no_value_is_lost(values, kind, then):
    rows = numbers_as_before(pa.table({"a": values}), pa.schema([("a", kind)]))
    assert rows["a"].type == then and rows["a"].to_pylist() == values


def test_who_is_refused_reads_what_differs_from_what_and_what_to_do():
    before = pa.schema([("a", pa.int32())])
    assert "a is int64 here and int32 in the table that is there" in differs("a", pa.int64(), pa.int32(), before)
    assert "--overwrite" in differs("a", pa.int64(), pa.int32(), before)
    for of in (None, before):
        assert "in the first shard" in differs("b", pa.int64(), pa.int32(), of)
