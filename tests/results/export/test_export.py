"""Each export, opened by what it is for."""

import csv
import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from cleanlab.filter import find_label_issues
from PIL import Image

from levit_batch.errors import ConfigError, OutputError
from levit_batch.results.export.arrays import export_cleanlab, export_numpy, softmax
from levit_batch.results.export.images import _field, export_fiftyone
from levit_batch.results.export.text import export_csv, export_jsonl, for_spreadsheets
from levit_batch.sources.source import open_source
from levit_batch.table.rows import list_matrix
from tests.support.outputs import CLASSES, make_output


@pytest.fixture(scope="module", params=["parquet", "arrow"])
def made(request, tmp_path_factory):
    return make_output(tmp_path_factory.mktemp("export"), format=request.param, logits=True, rows=60)


def test_csv(made, tmp_path):
    assert export_csv(made.output, str(tmp_path / "x")) == 180
    frame = pd.read_csv(tmp_path / "x/rows.csv")
    assert frame.label_name.tolist()[:58] == made.table["label_name"].to_pylist()[:58]
    assert frame.error.notna().sum() == 2 and frame.top_labels.isna().sum() == 2
    assert [json.loads(text) for text in frame.top_labels.dropna()] == made.table["top_labels"].drop_null().to_pylist()
    assert "embedding" not in frame and frame["image.path"][0] == "0/0000.png"


FORMULAS = ("=cmd|' /C calc'!A0", "+1+2", "-2", "@SUM(A1)", "\t=1", "\r=1", "＝1")


def test_csv_holds_no_formulas_and_jsonl_every_text_as_it_is(tmp_path):
    classes = (*FORMULAS, "plain - text")
    made = make_output(tmp_path, classes=classes)
    export_csv(made.output, str(tmp_path / "x"))
    with open(tmp_path / "x/rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = made.table["label_name"].to_pylist()
    assert set(names) - {None} == set(classes)
    assert [row["label_name"] for row in rows] == [f"'{n}" if n in FORMULAS else n or "" for n in names]
    assert not any(cell.startswith(FORMULAS + tuple("=+-@")) for row in rows for cell in row.values() if cell)
    assert float(rows[0]["score"]) == pytest.approx(made.table["score"][0].as_py())
    export_jsonl(made.output, str(tmp_path / "y"))
    lines = (tmp_path / "y/rows.jsonl").read_text().splitlines()
    assert [json.loads(line)["label_name"] for line in lines] == names
    export_numpy(made.output, str(tmp_path / "z"))
    with open(tmp_path / "z/index.csv", newline="") as file:
        assert {row["label_name"][0] for row in csv.DictReader(file)} == {"'", "p"}


def test_numbers_and_names_of_columns():
    views = pa.array(["@", ""], pa.string_view())
    table = pa.table({"=1+1": [-1, None], "n": [-0.5, 2.0], "t": pa.array(["-", None]), "u": views})
    safe = for_spreadsheets(table)
    assert safe.schema.names == ["'=1+1", "n", "t", "u"]
    assert list(safe.to_pydict().values()) == [[-1, None], [-0.5, 2.0], ["'-", None], ["'@", ""]]


def test_jsonl(made, tmp_path):
    assert export_jsonl(made.output, str(tmp_path / "x")) == 180
    rows = [json.loads(line) for line in (tmp_path / "x/rows.jsonl").read_text().splitlines()]
    assert [row["label"] for row in rows] == made.table["label"].to_pylist()
    assert rows[0]["embedding"] == made.table["embedding"][0].as_py() and rows[59]["embedding"] is None


def test_numpy(made, tmp_path):
    good = made.table.filter(pc.is_null(made.table["error"]))
    assert export_numpy(made.output, str(tmp_path / "x")) == good.num_rows == 178
    vectors = np.load(tmp_path / "x/embeddings.npy", mmap_mode="r")
    assert vectors.dtype == np.float16 and np.array_equal(vectors, list_matrix(good["embedding"]))
    with open(tmp_path / "x/index.csv") as file:
        index = [(row["shard"], int(row["row"])) for row in csv.DictReader(file)]
    assert index == list(zip(good["shard"].to_pylist(), good["row"].to_pylist(), strict=True))


def test_cleanlab_finds_the_rows_whose_target_was_changed(tmp_path):
    made = make_output(tmp_path, logits=True, rows=200, accuracy=1.0)
    assert export_cleanlab(made.output, str(tmp_path / "x")) == 600 - 2 - 3
    labels, probabilities, features = (np.load(tmp_path / f"x/{n}.npy") for n in ("labels", "pred_probs", "features"))
    index = pd.read_csv(tmp_path / "x/index.csv")
    assert index.target.tolist() == labels.tolist() and features.shape == (595, 8)
    assert np.allclose(probabilities.max(1), index.score, atol=1e-6) and np.allclose(probabilities.sum(1), 1, atol=1e-6)
    sure = np.flatnonzero(probabilities.max(1) > 0.8)[:20]
    labels[sure] = (labels[sure] + 1) % len(CLASSES)
    found = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    assert len(set(found[:20]) & set(sure)) >= 15


def test_fiftyone_folder(made, tmp_path):
    written, left_out = export_fiftyone(
        made.output, str(tmp_path / "x"), open_source(made.config.source), list(CLASSES)
    )
    assert (written, left_out) == (178, 2)
    said = json.loads((tmp_path / "x/labels.json").read_text())
    images = {file.stem: file for file in (tmp_path / "x/data").iterdir()}
    assert said["classes"] == list(CLASSES) and set(images) == set(said["labels"])
    by_row = {(r["shard"], r["row"]): r for r in made.table.to_pylist()}
    for key, label in said["labels"].items():
        row = by_row[label["attributes"]["shard"], label["attributes"]["row"]]
        assert label["label"] == row["label_name"] and label["confidence"] == pytest.approx(row["score"], abs=1e-5)
        assert label["attributes"]["image_path"] == row["image.path"] and key.endswith(f"-{row['image.path'][2:-4]}")
        source = pq.read_table(str(made.path.parent / "source" / row["shard"])).slice(row["row"], 1)
        assert images[key].read_bytes() == source["image"][0].as_py()["bytes"]
    assert Image.open(images[key]).format == "PNG" and images[key].suffix == ".png"


@pytest.mark.parametrize(("column", "field"), [("__key__", "key"), ("image.path", "image_path"), ("id", "source_id")])
def test_a_column_is_called_as_fiftyone_allows(column, field):
    assert _field(column) == field


def test_fiftyone_leaves_out_shards_that_changed(tmp_path):
    made = make_output(tmp_path)
    file = tmp_path / "source/part-01.parquet"
    pq.write_table(pq.read_table(file).slice(5), file)
    found = export_fiftyone(made.output, str(tmp_path / "x"), open_source(made.config.source), list(CLASSES))
    assert found == (78, 42) and len(json.loads((tmp_path / "x/labels.json").read_text())["labels"]) == 78


def test_what_the_output_lacks_is_said(tmp_path):
    made = make_output(tmp_path, target=None, embeddings="none")
    with pytest.raises(ConfigError, match="predict.logits=true"):
        export_cleanlab(made.output, str(tmp_path / "x"))
    with pytest.raises(ConfigError, match="predict.embeddings"):
        export_numpy(made.output, str(tmp_path / "x"))
    with pytest.raises(ConfigError, match="source.target_column"):
        export_cleanlab(make_output(tmp_path / "b", target=None, logits=True).output, str(tmp_path / "x"))
    with pytest.raises(ConfigError, match="one label a row"):
        export_cleanlab(make_output(tmp_path / "c", target="list", logits=True).output, str(tmp_path / "x"))


def test_nothing_is_replaced(made, tmp_path):
    (tmp_path / "mine").write_text("x")
    with pytest.raises(OutputError, match="is not empty"):
        export_csv(made.output, str(tmp_path))


def test_softmax_of_large_logits():
    assert np.allclose(softmax(np.array([[1000.0, 1000.0, -1000.0]])), [[0.5, 0.5, 0.0]])
