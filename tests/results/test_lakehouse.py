"""The ways to read a table that the README shows for lakehouses, run as they stand there."""

import re

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.results.metrics import measure
from levit_batch.results.page.card import write_card
from levit_batch.table.read import chunk_files
from tests.support import ROOT
from tests.support.outputs import CLASSES, make_output

SECTION = (ROOT / "levit_batch/README.md").read_text().split("### For your lakehouse")[1].split("\n### ")[0]


def block(word: str) -> str:
    """The one block of the section that has `word`."""
    (found,) = (text for text in re.findall(r"```(?:python|sql)\n(.*?)```", SECTION, re.DOTALL) if word in text)
    return found


@pytest.fixture(params=["float16", "float32"])
def made(request, tmp_path, monkeypatch):
    """An output at out/demo with a manifest, and beside its files one that a night is about to delete."""
    made = make_output(tmp_path, name="out/demo", embeddings=request.param)
    write_card(made.output, made.job, measure(made.output))
    files = chunk_files(made.output)
    paths = [f"data/{file.folder}/{file.written.name}" for file in files]
    pq.write_table(pa.table({"path": paths, "rows": [16, 16, 8] * 3}), made.path / "files.parquet")
    old = made.path / paths[0]
    old.with_name(old.name.replace(files[0].written.version, "0" * 8)).write_bytes(old.read_bytes())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    return made


def run(word: str) -> dict:
    """What the block with `word` leaves, after the first one."""
    names: dict = {}
    exec(block("pyarrow.dataset"), names)
    exec(block(word), names)
    return names


def test_pyarrow(made):
    rows = run("pyarrow.dataset")["rows"]
    assert rows.count_rows() == 120 and rows.schema.field("embedding").type == made.table.schema.field("embedding").type


def test_duckdb(made):
    first, second = block("DuckDB").strip().split(";\n")
    duckdb.sql(first)
    found = dict(duckdb.sql(second.rstrip(";")).fetchall())
    assert sum(found.values()) == 120 and found[None] == 2 and found.keys() - {None} <= set(CLASSES)


def test_polars(made):
    good = run("polars")["good"].collect()
    assert good.height == 118 and good["embedding"].to_numpy().shape == (118, 8)
    assert good.sort("shard", "row")["label"].to_list() == made.table["label"].drop_null().to_pylist()


def test_datasets_streaming(made):
    stream = run("load_dataset")["stream"]
    rows = list(stream)
    assert stream.features["label"].names == stream.features["target"].names == list(CLASSES)
    assert [row["label"] for row in rows] == made.table["label"].to_pylist() and len(rows[0]["embedding"]) == 8


def test_lance(made):
    pytest.importorskip("lance")
    import lance

    run("lance")
    rows = lance.dataset("labels.lance")
    kind = made.table.schema.field("embedding").type
    assert rows.count_rows() == 120 and rows.schema.field("embedding").type.equals(kind) and "image_path" in rows.schema.names
    near = rows.to_table(nearest={"column": "embedding", "q": made.table["embedding"][0].as_py(), "k": 1})
    assert near["row"].to_pylist() == [0] and near["shard"].to_pylist() == ["part-00.parquet"]


def test_iceberg(made):
    pytest.importorskip("pyiceberg")
    rows = run("pyiceberg")["table"].scan(selected_fields=("shard", "row", "label", "embedding")).to_arrow()
    rows = rows.sort_by([("shard", "ascending"), ("row", "ascending")])
    assert rows["label"].to_pylist() == made.table["label"].to_pylist()
    ours = np.array(made.table["embedding"][0].as_py(), np.float32)
    assert np.array_equal(np.array(rows["embedding"][0].as_py(), np.float32), ours)


def test_what_spark_reads_has_types_and_encodings_of_long_ago(made):
    """Spark itself is not here: what it refused, when it was tried by hand, were float16 and BYTE_STREAM_SPLIT."""
    footer = pq.read_metadata(chunk_files(made.output)[0].place.path)
    columns = [footer.row_group(0).column(i) for i in range(footer.num_columns)]
    assert {e for column in columns for e in column.encodings} <= {"PLAIN", "RLE", "RLE_DICTIONARY"}
    half = [column.path_in_schema for column in columns if column.physical_type == "FIXED_LEN_BYTE_ARRAY"]
    assert half == (["embedding.list.element"] if made.config.predict.embeddings == "float16" else [])
