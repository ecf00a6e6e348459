"""metrics.json against scikit-learn and against sums written out by hand."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_score, top_k_accuracy_score

from levit_batch.results.accuracy import accuracy
from levit_batch.results.metrics import measure
from levit_batch.table.footer import RECORD
from levit_batch.table.read import chunk_files, read_file
from levit_batch.table.rows import list_matrix
from levit_batch.table.scan import scan
from levit_batch.table.stats import SCORE_BINS
from levit_batch.table.target_stats import target_stats
from levit_batch.table.write import read_record, serialise
from tests.support.outputs import CLASSES, make_output

NAMES = tuple(f"class {i}" for i in range(12))


@pytest.fixture(scope="module", params=["parquet", "arrow"])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return make_output(
        folder, format=request.param, classes=NAMES, top_k=6, rows=200, logits=True, per_head=True, accuracy=0.6
    )


def judged(table: pa.Table) -> pa.Table:
    return table.filter(pc.and_(pc.is_null(table["error"]), pc.is_valid(table["target"])))


def test_counts(made):
    found, good = measure(made.output), made.table.filter(pc.is_null(made.table["error"]))
    assert found["rows"] == 600 and found["errors"] == {"null": 1, "decode": 1}
    assert found["error_rate"] == pytest.approx(2 / 600)
    counts = np.bincount(good["label"].to_numpy(), minlength=12)
    assert found["labels"] == {str(i): counts[i] for i in range(12) if counts[i]}
    assert list(found["labels"].values()) == sorted(found["labels"].values(), reverse=True)
    assert found["scores"]["histogram"] == np.histogram(good["score"], SCORE_BINS, (0, 1))[0].tolist()
    assert found["scores"]["mean"] == pytest.approx(np.mean(good["score"]))
    assert found["heads"]["divergence"] == pytest.approx(np.mean(good["head_divergence"]))
    assert found["heads"]["disagree"] == 1.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_accuracy_is_what_scikit_learn_computes(made):
    found, table = measure(made.output)["target"], judged(made.table)
    truth, label, logits = table["target"].to_numpy(), table["label"].to_numpy(), list_matrix(table["logits"])
    assert found["rows"] == len(truth) and found["without"] == 3 and found["failed"] == 2
    assert found["top1"] == pytest.approx(np.mean(truth == label)) and 0.5 < found["top1"] < 0.8
    assert found["top5"] == pytest.approx(top_k_accuracy_score(truth, logits, k=5, labels=range(12)))
    assert found["balanced"] == pytest.approx(balanced_accuracy_score(truth, label))
    precision = precision_score(truth, label, average=None, labels=range(12))
    for i, said in found["classes"].items():
        mine = truth == int(i)
        assert said["rows"] == mine.sum() and said["accuracy"] == pytest.approx(np.mean(label[mine] == int(i)))
        assert said["precision"] == pytest.approx(precision[int(i)])


def test_confusions(made):
    found, table = measure(made.output)["target"], judged(made.table)
    matrix = confusion_matrix(table["target"], table["label"], labels=range(12))
    np.fill_diagonal(matrix, 0)
    pairs = found["confusions"]
    assert all(matrix[p["target"], p["label"]] == p["rows"] for p in pairs)
    assert [p["rows"] for p in pairs] == sorted(matrix[matrix > 0].tolist(), reverse=True)[:100]


def test_calibration_error_by_hand(made):
    found, table = measure(made.output)["target"]["calibration"], judged(made.table)
    score, right = table["score"].to_numpy(), np.equal(table["target"], table["label"])
    by_hand = 0.0
    for i in range(15):
        inside = (score > i / 15) & (score <= (i + 1) / 15)
        if inside.any():
            by_hand += inside.mean() * abs(right[inside].mean() - score[inside].mean())
    assert found["error"] == pytest.approx(by_hand, abs=1e-6) and by_hand > 0.01
    assert sum(b["rows"] for b in found["bins"]) == len(score)
    assert all(b["from"] - 1e-6 <= b["score"] <= b["to"] + 1e-6 for b in found["bins"] if b["rows"])


def test_several_truths_a_row(tmp_path):
    made = make_output(tmp_path, target="list", rows=100, accuracy=0.5, top_k=4)
    found = measure(made.output)["target"]
    rows = [r for r in made.table.to_pylist() if r["error"] is None]
    some = [r for r in rows if r["target"]]
    assert found["rows"] == len(some) and found["without"] == len(rows) - len(some) == 3
    assert found["top1"] == pytest.approx(np.mean([r["label"] in r["target"] for r in some]))
    assert found["top5"] == 1.0  # four classes, four kept
    for i, said in found["classes"].items():
        mine = [r for r in some if int(i) in r["target"]]
        assert said["rows"] == len(mine)
        assert said["accuracy"] == pytest.approx(np.mean([r["label"] in r["target"] for r in mine]))
        answered = [r["label"] in r["target"] for r in some if r["label"] == int(i)]
        assert said["precision"] == pytest.approx(np.mean(answered))
    missed = [r for r in some if r["label"] not in r["target"] and len(r["target"]) == 1]
    assert sum(p["rows"] for p in found["confusions"]) == len(missed) > 0


def test_without_a_target(tmp_path):
    found = measure(make_output(tmp_path, target=None, embeddings="none").output)
    assert found["target"] is None and found["heads"] is None and found["rows"] == 120


def test_top5_is_not_claimed_when_fewer_labels_are_kept(tmp_path):
    assert measure(make_output(tmp_path, classes=NAMES, top_k=3).output)["target"]["top5"] is None


def test_an_output_of_error_rows_only(tmp_path):
    found = measure(make_output(tmp_path, shards=1, rows=4, bad=4).output)
    assert found["error_rate"] == 1.0 and found["scores"]["mean"] is None and found["target"]["top1"] is None
    assert json.dumps(found, allow_nan=False)


def good_rows(labels: list[int], k: int = 2) -> pa.Table:
    top = pa.array([[label, (label + 1) % 3] for label in labels], pa.list_(pa.int64(), k))
    return pa.table({"label": labels, "score": pa.array([0.5] * len(labels), pa.float32()), "top_labels": top})


def test_targets_outside_the_classes_are_wrong_and_negative_ones_are_unknown():
    found = accuracy(target_stats(good_rows([0, 1, 2, 2]), pa.array([0, 7, -1, None]), pa.array([True] * 4), 3), 3)
    assert (found["rows"], found["top1"], found["outside"], found["without"]) == (2, 0.5, 1, 2)


def test_a_slice_of_a_list_target():
    target = pa.array([[2], [0, 1], [0], []])[1:3]
    assert accuracy(target_stats(good_rows([0, 1]), target, pa.array([True] * 2), 3), 3)["top1"] == 0.5


def test_rows_come_in_order_and_only_the_columns_asked_for(made):
    table = pa.concat_tables(scan(made.output, ["shard", "row", "image.path", "no such column"]))
    assert table.equals(
        made.table.select(["shard", "row", "image.path"]).replace_schema_metadata(table.schema.metadata)
    )
    assert len(CLASSES) == 4


def without_sums(made, file) -> None:
    """The file as an older version wrote it: its record lacks what metrics need."""
    at = file.place
    table, record = read_file(file), read_record(at)
    record["stats"] = {name: record["stats"][name] for name in ("rows", "errors", "labels", "scores")}
    metadata = {RECORD: json.dumps(record).encode()}
    at.write_bytes(serialise(table, made.output.format, metadata))


@pytest.mark.parametrize("options", [{}, {"target": "list"}, {"target": None}, {"shards": 1, "rows": 4, "bad": 4}])
@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_footers_say_what_the_rows_say(tmp_path, monkeypatch, options, format):
    made = make_output(tmp_path, **{"classes": NAMES, "per_head": True, "format": format, "top_k": 5} | options)
    files = chunk_files(made.output)
    with monkeypatch.context() as patch:
        patch.setattr("levit_batch.table.books.read_table", None)  # no row is read
        kept = measure(made.output)
    without_sums(made, files[0])
    assert measure(made.output) == kept  # some of each
    for file in files[1:]:
        without_sums(made, file)
    assert measure(made.output) == kept
    truth = (lambda table: (table["target"], None)) if options.get("target", "int") else None
    assert measure(made.output, truth) == kept
