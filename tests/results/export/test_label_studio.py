"""`export --to label-studio` and back: files that Label Studio's SDK accepts, and what it makes of people's answers."""

import json
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import SourceError
from levit_batch.levit.weights import imagenet_names
from levit_batch.results.export.label_studio import read_annotations
from levit_batch.results.truth import TruthTable
from levit_batch.sources.columns.targets import told_apart
from levit_batch.sources.source import open_source
from pipelines.cli import main
from tests.support.outputs import make_output

GOLDEN = Path(__file__).parents[2] / "golden/label_studio"
NAMES = ("tench, Tinca tinca", "crane", "crane", 'a "<b>" & co')


NO_VALUE = '[{"data": {}, "annotations": [{"result": [{"from_name": "label"}]}]}]'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_output(tmp_path_factory.mktemp("made"), classes=NAMES, shards=2, rows=12, chunk_rows=8)


def exported(made, out, *words: str) -> list[dict]:
    assert main(["export", str(made.path), "--to", "label-studio", "--out", str(out), *words]) == 0
    return json.loads((out / "tasks.json").read_text())


def test_it_is_what_the_sdk_accepted(made, tmp_path):
    """See tests/golden/make_label_studio.py."""
    tasks, expected = exported(made, tmp_path / "out dir"), json.loads((GOLDEN / "tasks.json").read_text())
    assert (tmp_path / "out dir/label_config.xml").read_text() == (GOLDEN / "label_config.xml").read_text()
    for task in (*tasks, *expected):
        task["predictions"][0]["score"] = pytest.approx(task["predictions"][0]["score"], abs=1e-4)
    assert tasks == expected


def test_tasks_hold_the_images_and_our_labels(made, tmp_path, capsys):
    tasks = exported(made, tmp_path / "out dir")
    assert "22 rows written" in (said := capsys.readouterr().out) and "2 left out" in said
    by_row = {(row["shard"], row["row"]): row for row in made.table.to_pylist()}
    choices = [each.get("value") for each in ElementTree.parse(tmp_path / "out dir/label_config.xml").iter("Choice")]
    assert choices == ["tench, Tinca tinca", "crane (1)", "crane (2)", 'a "<b>" & co']
    for task in tasks:
        row = by_row[task["data"]["shard"], task["data"]["row"]]
        image = unquote(task["data"]["image"]).removeprefix("/data/local-files/?d=")
        source = pq.read_table(str(made.path.parent / "source" / row["shard"])).slice(row["row"], 1)
        assert (task["data"]["image.path"], task["data"]["note"]) == (row["image.path"], row["note"])
        assert image.endswith(f"-{row['row']:09d}-{Path(row['image.path']).stem}.png")
        assert (tmp_path / image).read_bytes() == source["image"][0].as_py()["bytes"]
        (said,) = task["predictions"]
        assert said["score"] == pytest.approx(row["score"], abs=1e-5)
        assert said["result"][0]["value"]["choices"] == [choices[row["label"]]]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_only_what_was_selected(made, tmp_path, ending, monkeypatch, capsys):
    file, read = str(tmp_path / f"next.{ending}"), []
    assert main(["select", str(made.path), "-n", "5", "--labelled", "--out", file, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    source = type(open_source(made.config.source))
    monkeypatch.setattr(source, "read", lambda self, chunk, was=source.read: read.append(chunk) or was(self, chunk))
    tasks = exported(made, tmp_path / "out", "--rows", file)
    assert {(t["data"]["shard"], t["data"]["row"]) for t in tasks} == {(row["shard"], row["row"]) for row in rows}
    assert sum(chunk.rows for chunk in read) == 5
    doubt = {(row["shard"], row["row"]): row["uncertainty"] for row in rows}
    assert all(t["data"]["uncertainty"] == doubt[t["data"]["shard"], t["data"]["row"]] for t in tasks)
    assert len(list((tmp_path / "out/images").iterdir())) == 5


def test_rows_that_are_not_there_are_left_out(made, tmp_path, capsys):
    chosen = {"shard": ["part-00.parquet", "part-00.parquet", "gone"], "row": [3, 11, 0]}  # good, an error row, nothing
    pq.write_table(pa.table(chosen), tmp_path / "some.parquet")
    assert len(exported(made, tmp_path / "out", "--rows", str(tmp_path / "some.parquet"))) == 1
    assert "1 row written" in (said := capsys.readouterr().out) or "1 rows written" in said
    assert "2 left out" in said
    pq.write_table(pa.table({"shard": ["x"]}), tmp_path / "other.parquet")
    for file, why in (("other.parquet", "has no column row"), ("no.csv", "not a readable")):
        words = ["--to", "label-studio", "--out", str(tmp_path / "y"), "--rows", str(tmp_path / file)]
        assert main(["export", str(made.path), *words]) == 2 and why in capsys.readouterr().err
    assert main(["export", str(made.path), "--to", "csv", "--rows", "x"]) == 2


@pytest.mark.parametrize("file", ["annotated.json", "min.json"])
def test_answers_come_back_as_truth(made, file, capsys):
    table = read_annotations(str(GOLDEN / file), "target")
    assert table["target"].to_pylist() == ["crane (1)", "crane (2)", "tench, Tinca tinca"]
    assert table.select(["shard", "row"]).to_pylist() == [{"shard": "part-00.parquet", "row": row} for row in (0, 1, 3)]
    truth = TruthTable(str(GOLDEN / file), ["shard", "row"], "target", list(NAMES))
    assert truth.targets.to_pylist() == [1, 2, 0] and truth.missed.null_count == 3
    assert main(["evaluate", str(made.path), "--target-table", str(GOLDEN / file), "--json"]) == 0
    metrics = json.loads(capsys.readouterr().out)["target"]
    right = [a == b for a, b in zip(made.table["label"].to_pylist()[:4], [1, 2, None, 0], strict=True)]
    assert metrics["rows"] == 3 and metrics["top1"] == pytest.approx(sum(right) / 3)


def test_several_choices_a_row(tmp_path):
    tasks = [{"shard": "a", "row": 1, "label": {"choices": ["x", "y"]}}, {"shard": "a", "row": 2, "label": "y"}]
    (tmp_path / "x.json").write_text(json.dumps(tasks))
    assert read_annotations(str(tmp_path / "x.json"), "truth")["truth"].to_pylist() == [["x", "y"], ["y"]]


@pytest.mark.parametrize("text", ["{", "[1]", '[{"label": "x"}]', NO_VALUE])
def test_another_json_is_refused_in_a_line(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(SourceError, match="not what Label Studio exports"):
        read_annotations(str(tmp_path / "x.json"), "target")
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(SourceError, match="has no column image.path"):
        TruthTable(str(tmp_path / "none.json"), ["image.path"], "target", list(NAMES))


def test_each_class_of_imagenet_is_told_apart():
    names = told_apart(imagenet_names())
    assert len(set(names)) == 1000 and [name for name in names if "(" in name] == ["crane (134)", "crane (517)"]
