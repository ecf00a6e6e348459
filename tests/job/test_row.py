"""The row's columns and types, and what `datasets` makes of their metadata."""

import json

import datasets
import pyarrow as pa
import pytest

from levit_batch.job.row import RESERVED, RowSpec, features, kept_name, output_schema
from levit_batch.sources.columns.standard import kept_as_written


def spec(**changes) -> RowSpec:
    values = {
        "class_names": ("cat", "dog, hound", "owl"), "embedding_width": 4, "top_k": 2, "embeddings": "float16",
        "logits": False, "per_head": False, "kept": pa.schema([]), "target": None,
    }  # fmt: skip
    return RowSpec(**(values | changes))


def test_the_plain_row():
    schema = output_schema(spec())
    assert schema.names == [
        "shard", "row", "label", "label_name", "score", "top_labels", "top_scores", "embedding", "error",
    ]  # fmt: skip
    assert schema.field("embedding").type == pa.list_(pa.float16(), 4)
    assert schema.field("top_labels").type == pa.list_(pa.int64(), 2)


def test_every_column_on_request():
    schema = output_schema(spec(logits=True, per_head=True, embeddings="none", target=pa.int32()))
    assert schema.field("logits").type == pa.list_(pa.float32(), 3)
    assert {"head_label", "distill_label", "head_divergence", "target"} <= set(schema.names)
    assert "embedding" not in schema.names


def test_datasets_finds_class_names_and_lengths_in_the_schema():
    found = datasets.Features.from_arrow_schema(output_schema(spec(per_head=True, target=pa.int64())))
    for name in ("label", "target", "head_label", "distill_label"):
        assert found[name] == datasets.ClassLabel(names=["cat", "dog, hound", "owl"]), name
    assert found["embedding"] == datasets.List(datasets.Value("float16"), length=4)
    assert found["top_scores"] == datasets.List(datasets.Value("float32"), length=2)


def test_several_truths_a_row_keep_their_class_names():
    found = datasets.Features.from_arrow_schema(output_schema(spec(target=pa.list_(pa.int32()))))
    assert found["target"] == datasets.List(datasets.ClassLabel(names=["cat", "dog, hound", "owl"]))


KEPT_TYPES = [
    pa.string(), pa.large_string(), pa.binary(), pa.bool_(), pa.int8(), pa.uint16(), pa.float16(), pa.float64(),
    pa.date32(), pa.timestamp("us"), pa.timestamp("ns", tz="UTC"), pa.duration("ms"), pa.decimal128(10, 2),
    pa.list_(pa.string()), pa.large_list(pa.int32()), pa.list_(pa.float32(), 3),
    pa.struct([("a", pa.int32()), ("b", pa.list_(pa.string()))]), pa.dictionary(pa.int32(), pa.string()),
]  # fmt: skip


@pytest.mark.parametrize("kind", KEPT_TYPES, ids=str)
def test_a_kept_column_of_any_type_does_not_cost_the_class_names(kind):
    schema = output_schema(spec(kept=pa.schema([("extra", kind)])))
    found = datasets.Features.from_arrow_schema(schema)
    assert found["label"].names == ["cat", "dog, hound", "owl"]
    value_type = kind.value_type if pa.types.is_dictionary(kind) else kind
    assert found.arrow_schema.field("extra").type == value_type


def test_kept_columns_keep_what_their_source_says_of_them():
    said = {"kind": {"names": ["a", "b"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": said}})}
    kept = pa.schema([("kind", pa.int64()), ("image.path", pa.string())], metadata=metadata)
    found = datasets.Features.from_arrow_schema(output_schema(spec(kept=kept)))
    assert found["kind"].names == ["a", "b"]
    assert found["image.path"] == datasets.Value("string")


def test_a_kept_column_named_as_one_of_ours_is_renamed():
    schema = output_schema(spec(kept=pa.schema([("label", pa.string())])))
    assert kept_name("label") == "source_label" and schema.field("source_label").type == pa.string()
    assert (kept_name("Label"), kept_name("row.x"), kept_name("source_row")) == ("source_Label", "row.x", "source_row")
    assert list(features(schema, spec().class_names, {})) == schema.names


def test_every_name_of_ours_is_reserved():
    assert set(output_schema(spec(logits=True, per_head=True, target=pa.int32(), hash=True)).names) == {*RESERVED}


def test_lists_of_a_fixed_length_have_any_length_in_parquet():
    numbers = {"feature": {"dtype": "float32", "_type": "Value"}, "length": 3, "_type": "List"}
    names = {"feature": {"names": ["a", "b"], "_type": "ClassLabel"}, "length": 2, "_type": "List"}
    said = {"v": names, "s": {"length": numbers}}
    kinds = [("v", pa.list_(pa.int64(), 2)), ("s", pa.struct([("length", pa.list_(pa.float32(), 3))]))]
    kept = pa.schema(kinds, metadata={"huggingface": json.dumps({"info": {"features": said}})})
    assert kept_as_written(kept, "arrow") is kept
    written = kept_as_written(kept, "parquet")
    assert written.types == [pa.list_(pa.int64()), pa.struct([("length", pa.list_(pa.float32()))])]
    found = datasets.Features.from_arrow_schema(output_schema(spec(kept=written)))
    assert found["v"] == datasets.List(datasets.ClassLabel(names=["a", "b"]))
    assert found["s"] == {"length": datasets.List(datasets.Value("float32"))}
