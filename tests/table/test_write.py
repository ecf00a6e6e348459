"""Chunk files as other tools read them: every reader, both formats, error rows among the good ones."""

import json
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
from levit_batch.job.chunks import plan_chunks
from levit_batch.job.config import SourceConfig
from levit_batch.job.row import FINGERPRINT, RowSpec
from levit_batch.levit.weights import imagenet_names
from levit_batch.sources.columns.standard import kept_as_written
from levit_batch.sources.source import open_source
from levit_batch.storage.place import place
from levit_batch.table.footer import RECORD, footer, record_in
from levit_batch.table.rows import output_table
from levit_batch.table.write import read_record, serialise, whole_lists
from tests.support.outputs import CLASSES, make_output

PRECISIONS = ("float16", "float32")
IMAGENET = tuple(imagenet_names())


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
    assert table.features["embedding"].length == 8 and table.features["logits"].length == 4
    assert table["label"][:] == parquet.table["label"].to_pylist()


def test_the_footer_of_a_default_chunk_is_small_and_names_no_class(tmp_path):
    made = make_output(tmp_path, shards=1, rows=2048, chunk_rows=2048, classes=IMAGENET, width=512, top_k=5, target=None)
    (file,) = made.path.rglob("data/*/*.parquet")
    data = file.read_bytes()
    footer = data[-8 - int.from_bytes(data[-8:-4], "little") : -8]
    assert len(footer) < 6000 and b"huggingface" not in footer
    assert pq.read_schema(file).metadata is None and read_record(place(str(file)))["stats"]["rows"] == 2048


RECORDS = [
    {"labels": {"7": 1, "0": 2, "999": 3}, "classes": {"3": [1, 2], "12": [3, 4]}, "errors": {"null": 1}},
    {"one": {"5": 1}, "none": {}, "mixed": {"5": 1, "x": 2}, "padded": {"05": 1, "5": 2}, "far": {str(10**18): 1, "2": 2}},
    {"deep": [{"4": {"1": 1, "2": 2}, "5": None}], "score": 0.1 + 0.2, "text": "Zo\u00eb\x00"},
]  # fmt: skip


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_is_what_it_was(record):
    packed = footer("f", record)[RECORD]
    assert record_in({RECORD: packed}) == record and packed.isascii()
    assert record_in({RECORD: json.dumps(record).encode()}) == record  # as older files have it


@pytest.mark.parametrize("packed", [b"", b"abc", b"eJw=", b"x" * 100, b"[", b"{"])
def test_a_damaged_record_is_refused_by_name(tmp_path, packed):
    table = pa.table({"a": [1]})
    (tmp_path / "x.parquet").write_bytes(serialise(table, "parquet", {RECORD: packed}))
    with pytest.raises(OutputError, match="x.parquet: not a file that levit-batch wrote"):
        read_record(place(str(tmp_path / "x.parquet")))


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
    holder = pq.read_metadata(file) if format == "parquet" else pa.ipc.open_stream(file.read_bytes()).schema
    assert holder.metadata[FINGERPRINT] == b"f" * 64


def test_a_foreign_file_has_no_record(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    Path(tmp_path / "b.parquet").write_bytes(b"hello")
    for name in ("a.parquet", "b.parquet"):
        with pytest.raises(OutputError, match="not a file that levit-batch wrote"):
            read_record(place(str(tmp_path / name)))


KEPT_ROWS = {
    "target": [10, 11, None], "Label": [77, 77, 78], "source_row": ["a", None, "c"], "a.b": [1, 2, 3],
    "vector": [[1, 2], None, [3, None]], "nested": [{"v": [1, 2]}, {"v": None}, None],
}  # fmt: skip
FIXED = {"vector": pa.list_(pa.float32(), 2), "nested": pa.struct([("v", pa.list_(pa.int8(), 2))])}


reads_null_vectors = pytest.mark.skipif(
    int(pa.__version__.split(".")[0]) < 26, reason="pyarrow before 26 reads no null in a column of fixed-size lists"
)


def kept_file(folder: Path, format: str) -> Path:
    """A chunk file of three error rows that kept `KEPT_ROWS` beside the truth, by every step from the source on."""
    image = pa.array([{"bytes": b"x", "path": f"{i}.png"} for i in range(3)])
    columns = {name: pa.array(values, FIXED.get(name)) for name, values in KEPT_ROWS.items()}
    pq.write_table(pa.table({"image": image, "label": [0, 1, 1], **columns}), folder / "source.parquet")
    keep = [*KEPT_ROWS, "image.path"]
    source = open_source(SourceConfig(path=str(folder / "source.parquet"), target_column="label", keep_columns=keep))
    (chunk,) = plan_chunks(source.shards(), 10)
    spec = RowSpec(CLASSES, 4, 2, "float16", True, True, kept_as_written(source.kept(), format), pa.int32())
    read = pa.concat_tables(source.read(chunk))
    written = output_table("source.parquet", 0, read, ["decode: not an image"] * 3, None, spec)
    (folder / f"out.{format}").write_bytes(serialise(written, format))
    return folder / f"out.{format}"


def check_kept(rows: dict[str, list]) -> None:
    """rows: of any reader, by column."""
    assert rows["target"] == [0, 1, 1] and rows["source_target"] == [10, 11, None]
    assert rows["source_Label"] == [77, 77, 78]
    assert rows["row"] == [0, 1, 2] and rows["source_row"] == ["a", None, "c"] and rows["a.b"] == [1, 2, 3]
    assert rows["vector"] == KEPT_ROWS["vector"] and rows["nested"] == KEPT_ROWS["nested"]
    assert rows["image.path"] == ["0.png", "1.png", "2.png"]
    assert rows["embedding"] == [[None] * 4] * 3


@reads_null_vectors
def test_kept_columns_are_what_they_were_to_every_reader_of_parquet(tmp_path):
    file = kept_file(tmp_path, "parquet")
    check_kept(pq.read_table(file).to_pydict())
    check_kept(pl.read_parquet(file).to_dict(as_series=False))
    found = duckdb.sql(f"select * from '{file}'")
    check_kept(dict(zip(found.columns, map(list, zip(*found.fetchall(), strict=True)), strict=True)))
    assert duckdb.sql(f"select label from '{file}'").fetchall() == [(None,)] * 3
    frame = pd.read_parquet(file)
    assert frame.target.tolist() == [0, 1, 1] and frame.source_Label.tolist() == [77, 77, 78]
    assert frame.vector[1] is None and frame.vector[0].tolist() == [1, 2] and frame.nested[1] == {"v": None}
    table = datasets.Dataset.from_parquet(str(file), cache_dir=str(tmp_path / "cache"))
    assert table["vector"][1] is None and table.features["embedding"].length == 4
    assert not any(pa.types.is_fixed_size_list(pq.read_schema(file).field(name).type) for name in FIXED)


@reads_null_vectors
def test_kept_columns_are_what_they_were_in_arrow_files(tmp_path):
    file = kept_file(tmp_path, "arrow")
    rows = pa.ipc.open_stream(file.read_bytes()).read_all()
    check_kept(rows.to_pydict())
    check_kept(pl.read_ipc_stream(file).to_dict(as_series=False))
    check_kept(datasets.Dataset.from_file(str(file)).to_dict())
    assert {name: rows.schema.field(name).type for name in FIXED} == FIXED


def test_whole_lists_of_slices_and_of_lists_without_nulls():
    column = pa.array([[1, 2], None, [3, None], None, [5, 6]], pa.list_(pa.int32(), 2))
    ours, kept = pa.chunked_array([column.slice(1, 3), column.slice(4)]), column.slice(1)
    table = whole_lists(pa.table({"logits": ours, "kept": kept}))
    assert table["logits"].to_pylist() == [[None, None], [3, None], [None, None], [5, 6]]
    assert table["kept"].to_pylist() == kept.to_pylist()
    plain = pa.table({"logits": column.slice(4)})
    assert whole_lists(plain) is plain


def test_parquet_is_compressed_and_has_statistics(parquet):
    footer = pq.read_metadata(min(parquet.path.rglob("data/*/*.parquet"))).row_group(0)
    columns = {footer.column(i).path_in_schema: footer.column(i) for i in range(footer.num_columns)}
    assert all(column.compression == "ZSTD" for column in columns.values())
    assert columns["row"].statistics.min == 0 and columns["row"].statistics.max == 15
    lists = [name for name in columns if name.startswith(("embedding.", "logits.", "top_"))]
    assert len(lists) == 4 and not any(columns[name].is_stats_set for name in lists)  # a third of the time of writing
    encodings = {encoding for column in columns.values() for encoding in column.encodings}
    assert encodings <= {"PLAIN", "RLE", "RLE_DICTIONARY"}  # what Spark's vectorised reader knows, of every version
