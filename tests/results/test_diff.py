"""Two labelings of the same rows against a join written in pandas; their page; the history of runs."""

import json
import shutil

import pandas as pd
import pytest

from levit_batch.results.diff import diff
from levit_batch.table.output import Output
from pipelines.cli import main
from tests.support.outputs import CLASSES, make_output


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diff")
    return make_output(folder, name="a", seed=1), make_output(folder, name="b", seed=2, chunk_rows=7, accuracy=0.9)


def joined(one, other) -> pd.DataFrame:
    """Rows of two tables side by side, those with an error in either left out."""
    columns = ["shard", "row", "label_name", "score", "target", "error"]
    frames = [table.select(columns).to_pandas() for table in (one, other)]
    both = frames[0].merge(frames[1], on=["shard", "row"], suffixes=("_a", "_b"))
    return both[both.error_a.isna() & both.error_b.isna()]


def test_figures(pair):
    one, other = pair
    found, rows = diff(one.output, other.output), joined(one.table, other.table)
    same = rows.label_name_a == rows.label_name_b
    assert (found["rows"], found["compared"], found["errors"], found["only_in"]) == (120, 118, [2, 2], [0, 0])
    assert found["agreement"] == pytest.approx(same.mean()) and 0.5 < same.mean() < 0.9
    assert found["mean_score_change"] == pytest.approx((rows.score_b - rows.score_a).mean(), abs=1e-6)
    for name, said in found["classes"].items():
        mine = rows[rows.label_name_a == name]
        assert said == {"rows": len(mine), "agreement": pytest.approx((mine.label_name_b == name).mean())}
    flips = rows[~same].groupby(["label_name_a", "label_name_b"]).size().to_dict()
    assert {(f["from"], f["to"]): f["rows"] for f in found["flips"]} == flips
    counts = [f["rows"] for f in found["flips"]]
    assert counts == sorted(counts, reverse=True)


def test_accuracy_of_both(pair):
    found, rows = diff(pair[0].output, pair[1].output)["target"], joined(pair[0].table, pair[1].table)
    rows = rows[rows.target_a.notna()]
    truth = rows.target_a.astype(int).map(dict(enumerate(CLASSES)))
    right = [truth == rows.label_name_a, truth == rows.label_name_b]
    assert found["rows"] == len(rows) and found["top1"] == pytest.approx([r.mean() for r in right])
    assert (found["mended"], found["broken"]) == ((right[1] & ~right[0]).sum(), (right[0] & ~right[1]).sum())


def test_rows_to_look_at(pair):
    found, rows = diff(pair[0].output, pair[1].output, look=5)["look"], joined(pair[0].table, pair[1].table)
    rows = rows[rows.label_name_a != rows.label_name_b]
    rows = rows.assign(key=rows[["score_a", "score_b"]].min(axis=1)).nlargest(5, "key")
    assert [(r["shard"], r["row"]) for r in found] == list(zip(rows.shard, rows.row, strict=True))
    assert [r["other_name"] for r in found] == rows.label_name_b.tolist()


def test_an_output_agrees_with_itself(pair):
    found = diff(pair[0].output, pair[0].output)
    assert found["agreement"] == 1.0 and not found["flips"] and not found["look"] and found["target"]["mended"] == 0


def test_classes_are_matched_by_name(tmp_path):
    one = make_output(tmp_path, name="a", accuracy=1.0, target=None)
    other = make_output(tmp_path, name="b", accuracy=1.0, target=None, classes=CLASSES[::-1])
    found = diff(one.output, other.output)
    rows = joined_names(one.table, other.table)
    assert found["agreement"] == pytest.approx((rows.label_name_a == rows.label_name_b).mean())
    assert set(found["classes"]) == set(CLASSES)


def joined_names(one, other) -> pd.DataFrame:
    frames = [table.select(["shard", "row", "label_name"]).to_pandas() for table in (one, other)]
    return frames[0].merge(frames[1], on=["shard", "row"], suffixes=("_a", "_b")).dropna()


@pytest.mark.parametrize("missing", [(0,), (2,), (1, 3), (0, 1, 2, 3, 4, 5)])
def test_rows_that_only_one_output_has(tmp_path, missing):
    one, other = make_output(tmp_path, name="a"), make_output(tmp_path, name="b", chunk_rows=7, seed=3)
    files = sorted(other.folder("part-01.parquet").iterdir())
    gone = 0
    for i in missing:
        gone += 7 if i < 5 else 5
        files[i].unlink()
    found = diff(one.output, other.output)
    assert len(files) == 6 and found["rows"] == 120 - gone and found["only_in"] == [gone, 0]
    assert diff(other.output, one.output)["only_in"] == found["only_in"][::-1]


def test_a_shard_that_changed_is_left_out(tmp_path):
    one = make_output(tmp_path, name="a")
    file = tmp_path / "source/part-01.parquet"
    file.touch()
    other = make_output(tmp_path, name="b")
    found = diff(one.output, other.output)
    assert found["changed_shards"] == ["part-01.parquet"] and found["rows"] == 80


def test_outputs_without_a_row_in_common_are_told_apart(tmp_path, capsys):
    one, other = make_output(tmp_path / "1"), make_output(tmp_path / "2", shards=1)
    words = ["diff", str(one.path), str(other.path), "--html", str(tmp_path / "d.html")]
    assert main(words) == 2
    assert "changed in between" in (said := capsys.readouterr()).err and said.out == "" and said.err.count("\n") == 1
    for file in other.folder("part-00.parquet").iterdir():
        file.unlink()
    shutil.copytree(one.folder("part-01.parquet"), other.folder("part-01.parquet"))
    for file in one.folder("part-01.parquet").iterdir():
        file.unlink()
    assert main(words) == 2 and not (tmp_path / "d.html").exists()
    line = capsys.readouterr().err
    assert f"{one.path} has for example shard part-0" in line and f"{other.path} has shard part-01.parquet" in line


def test_the_command_and_its_page(pair, capsys, tmp_path):
    words = ["diff", str(pair[0].path), str(pair[1].path)]
    assert main([*words, "--html", str(tmp_path / "d.html"), "-n", "3"]) == 0
    out = capsys.readouterr().out
    assert "agreement" in out and "Rows to look at" in out and "top-1 of 115 rows" in out
    page = (tmp_path / "d.html").read_text()
    assert page.count("data:image/jpeg") == 3 and "default-src 'none'" in page and "rows that only B has right" in page
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == diff(pair[0].output, pair[1].output)


def test_history(tmp_path, capsys):
    made = make_output(tmp_path, runs=3)
    output = Output(made.config.output)
    run = output.read_json("runs/20261103T020000.12Z.json")
    drift = {"verdict": "drift", "breaches": ["score_ks"], "checks": []}
    output.write_json("runs/20261103T020000.12Z.json", run | {"drift": drift})
    output.write_json("runs/20261104T020000.12Z.json", {"started": "2026-11-04T02:00:00+00:00", "state": "failed"})
    assert main(["history", str(made.path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and lines[0].split()[:3] == ["started", "state", "new"]
    assert "2026-11-03 02:00 UTC" in lines[3] and "71.5" in lines[3] and "drift (score_ks)" in lines[3]
    assert "failed" in lines[4]
    assert main(["history", str(made.path), "--json", "-n", "2"]) == 0
    assert [r["name"] for r in json.loads(capsys.readouterr().out)] == ["20261103T020000.12Z", "20261104T020000.12Z"]
