"""Chunk files as other tools read them: every reader, both formats, error rows among the good ones."""

import io
from pathlib import Path

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import OutputError
from levit_batch.storage import place
from levit_batch.write import FINGERPRINT, read_record, serialise, whole_lists
from tests.outputs import CLASSES, make_output

PRECISIONS = ("float16", "float32")


@pytest.fixture(scope="module", params=PRECISIONS)
def parquet(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("parquet")
    return make_output(folder, embeddings=request.param, logits=True, per_head=True)


def matrix(table: pa.Table, name: str = "embedding") -> np.ndarray:
    """A column of fixed-size lists as float64 [N, W], NaN in error rows."""
    column = whole_lists(table)[name].combine_chunks()
    return column.flatten().to_numpy(zero_copy_only=False).astype(float).reshape(len(column), -1)


def test_pyarrow_reads_every_row_and_type_back(parquet):
    table = ds.dataset(parquet.path / "data").to_table().sort_by([("shard", "ascending"), ("row", "ascending")])
    assert table.equals(whole_lists(parquet.table))
    assert table.schema.field("embedding").type.list_size == 8


def test_error_rows_hold_lists_of_nulls(parquet):
    bad = pq.read_table(parquet.path / "data", filters=[("error", "!=", "")])
    assert bad.num_rows == 2
    assert bad["embedding"].to_pylist() == [[None] * 8] * 2
    assert bad["label"].null_count == bad["score"].null_count == bad["label_name"].null_count == 2


def test_pandas(parquet):
    frame = pd.read_parquet(parquet.path / "data").sort_values(["shard", "row"])
    assert frame.label_name.dropna().isin(CLASSES).all() and frame.label_name.isna().sum() == 2
    assert np.array_equal(np.stack(frame.embedding).astype(float), matrix(parquet.table), equal_nan=True)


@pytest.mark.parametrize("scan", ["folder", "glob"])
def test_polars(parquet, scan):
    path = parquet.path / "data" if scan == "folder" else parquet.path / "data/**/*.parquet"
    frame = pl.scan_parquet(path).sort("shard", "row").collect()
    width = {"halffloat": pl.Float16, "float": pl.Float32}[str(parquet.table.schema.field("embedding").type.value_type)]
    assert frame.schema["embedding"] == pl.Array(width, 8) and frame.schema["label"] == pl.Int64
    good = frame.filter(pl.col("error").is_null())["embedding"].to_numpy().astype(float)
    assert np.array_equal(good, matrix(parquet.table.filter(pa.compute.is_null(parquet.table["error"]))))


@pytest.mark.parametrize("glob", ["data/**/*.parquet", "data/*/*.parquet"])
def test_duckdb(parquet, glob):
    rows = duckdb.sql(
        f"select shard, row, label_name, embedding[1], len(embedding) from '{parquet.path}/{glob}' order by all"
    ).fetchall()
    said = zip(*(parquet.table[n].to_pylist() for n in ("shard", "row", "label_name")), strict=True)
    assert [row[:3] for row in rows] == sorted(said)
    first = np.array([row[3] for row in rows], float)
    assert np.allclose(first, matrix(parquet.table)[:, 0], equal_nan=True) and {row[4] for row in rows} == {8}


def test_datasets_from_parquet(parquet, tmp_path):
    files = sorted(str(file) for file in parquet.path.rglob("data/*/*.parquet"))
    table = datasets.Dataset.from_parquet(files, cache_dir=str(tmp_path))
    for name in ("label", "target", "head_label", "distill_label"):
        assert table.features[name].names == list(CLASSES)
    assert table.features["embedding"].length == 8 and table.features["logits"].length == 4
    assert table["label"][:] == parquet.table["label"].to_pylist()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_arrow_files_open_in_datasets_and_memory_mapped(tmp_path, precision):
    made = make_output(tmp_path, format="arrow", embeddings=precision)
    files = sorted(made.path.rglob("data/*/*.arrow"))
    tables = [datasets.Dataset.from_file(str(file)) for file in files]
    assert tables[0].features["label"].names == list(CLASSES) and tables[0].features["embedding"].length == 8
    assert [i for table in tables for i in table["label"]] == made.table["label"].to_pylist()
    before = pa.total_allocated_bytes()
    with pa.memory_map(str(files[1])) as file:
        mapped = pa.ipc.open_stream(file).read_all()
        assert pa.total_allocated_bytes() == before
        assert mapped.num_rows == pl.read_ipc_stream(files[1]).height == 16


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_a_file_names_its_job_and_carries_its_record(tmp_path, format):
    made = make_output(tmp_path, format=format, shards=1)
    file = sorted(made.path.rglob(f"data/*/*.{format}"))[-1]
    record = read_record(place(str(file)))
    assert (record["shard"], record["first"], record["stop"]) == ("part-00.parquet", 32, 40)
    assert record["errors"] == {"null": 1, "decode": 1}
    schema = pq.read_schema(file) if format == "parquet" else pa.ipc.open_stream(file.read_bytes()).schema
    assert schema.metadata[FINGERPRINT] == b"f" * 64


def test_a_foreign_file_has_no_record(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    Path(tmp_path / "b.parquet").write_bytes(b"hello")
    for name in ("a.parquet", "b.parquet"):
        with pytest.raises(OutputError, match="not a file that levit-batch wrote"):
            read_record(place(str(tmp_path / name)))


def test_whole_lists_of_slices_and_of_lists_without_nulls():
    column = pa.array([[1, 2], None, [3, None], None, [5, 6]], pa.list_(pa.int32(), 2))
    table = pa.table({"x": pa.chunked_array([column.slice(1, 3), column.slice(4)])})
    assert whole_lists(table)["x"].to_pylist() == [[None, None], [3, None], [None, None], [5, 6]]
    plain = pa.table({"x": column.slice(4)})
    assert whole_lists(plain) is plain


def test_parquet_is_compressed_and_has_statistics(parquet):
    footer = pq.read_metadata(min(parquet.path.rglob("data/*/*.parquet"))).row_group(0)
    columns = {footer.column(i).path_in_schema: footer.column(i) for i in range(footer.num_columns)}
    assert all(column.compression == "ZSTD" for column in columns.values())
    assert columns["row"].statistics.min == 0 and columns["row"].statistics.max == 15
    split = "BYTE_STREAM_SPLIT" in columns["embedding.list.element"].encodings
    assert split == (columns["embedding.list.element"].physical_type == "FLOAT")
    assert "BYTE_STREAM_SPLIT" in columns["logits.list.element"].encodings


def test_byte_stream_split_makes_float32_embeddings_smaller():
    vectors = np.random.default_rng(0).normal(0, 1, (512, 384)).astype(np.float32)
    table = pa.table({"embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 384)})
    plain = io.BytesIO()
    pq.write_table(table, plain, compression="zstd", use_dictionary=False)
    assert len(serialise(table, "parquet")) < 0.95 * plain.tell()
