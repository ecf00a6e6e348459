"""Heads trained on the embeddings of a table: as good as logistic regression on the same rows, and of use at once."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from levit_batch.errors import CheckpointError, ConfigError, OutputError, SourceError
from levit_batch.job.load import validate
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.table.rows import list_matrix
from levit_batch.table.scan import scan
from levit_batch.training import trainer
from levit_batch.training.config import FinetuneConfig
from levit_batch.training.data import Split
from levit_batch.training.stored import StoredEmbeddings
from pipelines.finetune.plan import make_plan
from pipelines.finetune.run import finetune
from pipelines.rescore.prepare import prepare
from pipelines.rescore.run import rescore
from tests.support.labelled import DIGITS_MODEL, labelled, other_head
from tests.support.trainings import same_weights, weights

FRACTION = 0.3


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The held-out digits, labelled by the demo's model."""
    return labelled(tmp_path_factory.mktemp("labelled"), source={"keep_columns": ["image.path"]})


@pytest.fixture(scope="module")
def rows(table):
    return pa.concat_tables(one.replace_schema_metadata() for one in scan(table))


def config(table, folder, source=None, checkpoint=DIGITS_MODEL, **sections):
    values = {
        "source": {"type": "output", "path": str(table), "target_column": "target"} | (source or {}),
        "validation": {"fraction": FRACTION}, "model": {"checkpoint": str(checkpoint)}, "output": {"path": str(folder)},
        "train": {"freeze": "backbone", "epochs": 30, "batch_size": 64, "learning_rate": 5e-3, "seed": 3},
    }  # fmt: skip
    for name, section in sections.items():
        values[name] = values.get(name, {}) | section
    return validate(values, "test", FinetuneConfig)


@pytest.fixture(scope="module")
def truth(rows, tmp_path_factory):
    """Other classes than the model's, by the name of the image: is the digit odd, or below five; some rows have none."""
    file = tmp_path_factory.mktemp("truth") / "truth.parquet"
    known = rows.filter(pc.is_valid(rows["target"])).slice(40)
    kinds = [f"{'odd' if t % 2 else 'even'} {'low' if t < 5 else 'high'}" for t in known["target"].to_pylist()]
    order = np.random.default_rng(0).permutation(len(kinds))
    pq.write_table(pa.table({"shard": known["shard"], "row": known["row"], "kind": kinds}).take(pa.array(order)), file)
    return file


def split_rows(rows, truth):
    """Embeddings and kinds of the rows that are trained on, and of those that validate."""
    kinds = {(t["shard"], t["row"]): t["kind"] for t in pq.read_table(truth).to_pylist()}
    good, part = rows.filter(pc.is_null(rows["error"])), Split(3, 0.0, FRACTION)
    keys = list(zip(good["shard"].to_pylist(), good["row"].to_pylist(), strict=True))
    known = np.array([key in kinds for key in keys])
    held = np.array([part.holds(part.key(*key)) for key in keys])
    embedding, names = list_matrix(good["embedding"]).astype(np.float32), np.array([kinds.get(key, "") for key in keys])
    return [(embedding[which], names[which]) for which in (known & ~held, known & held)]


def test_a_probe_is_as_good_as_logistic_regression_and_rescores(table, rows, truth, tmp_path):
    record = finetune(config(table, tmp_path / "head", {"truth": str(truth), "target_column": "kind"}))
    (given, kinds), (asked, expected) = split_rows(rows, truth)
    scaler = StandardScaler().fit(given)
    oracle = LogisticRegression(max_iter=2000).fit(scaler.transform(given), kinds).score(scaler.transform(asked), expected)
    best, before, after = record["best"], load_checkpoint(str(DIGITS_MODEL)), load_checkpoint(str(tmp_path / "head"))
    assert best["validation_rows"] == len(asked) and best["rows"] == len(given) // 64 * 64, "none of one are of the other"
    assert record["history"][0]["skipped"]["target"] > 0
    assert best["validation_accuracy"] >= oracle - 0.005 and oracle > 0.9
    assert after.backbone == before.backbone and after.class_names == sorted(set(kinds))
    task = prepare(str(table), str(tmp_path / "head"), str(tmp_path / "new"))
    result = rescore(task)
    new = pa.concat_tables(one.replace_schema_metadata() for one in scan(task.output))
    good, part = new.filter(pc.is_null(new["error"])), Split(3, 0.0, FRACTION)
    said = {(r["shard"], r["row"]): r["label_name"] for r in good.select(["shard", "row", "label_name"]).to_pylist()}
    kinds = {(t["shard"], t["row"]): t["kind"] for t in pq.read_table(truth).to_pylist()}
    held = [key for key in said if key in kinds and part.holds(part.key(*key))]
    assert np.mean([said[key] == kinds[key] for key in held]) == pytest.approx(best["validation_accuracy"], abs=1e-9)
    assert result.metrics["rows"] == len(rows)


def test_the_table_s_own_truth_goes_on_from_its_heads(table, tmp_path):
    record = finetune(config(table, tmp_path / "head", {"limit": 400}, train={"epochs": 2}))
    assert record["values"]["classes"] == load_checkpoint(str(DIGITS_MODEL)).class_names
    assert record["history"][0]["accuracy"] > 0.95, "its heads knew the classes already"
    assert sum(entry["rows"] for entry in record["history"]) <= 2 * 400


def test_broken_off_it_ends_as_if_it_had_not_been(table, truth, tmp_path, monkeypatch):
    source = {"truth": str(truth), "target_column": "kind"}
    finetune(config(table, tmp_path / "whole", source, train={"epochs": 4}))
    step, taken = trainer.Trainer._step, []

    def breaking(self, *rest):
        taken.append(1)
        if len(taken) == 14:
            raise KeyboardInterrupt
        return step(self, *rest)

    again = config(table, tmp_path / "again", source, train={"epochs": 4, "save_steps": 3})
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(trainer.Trainer, "_step", breaking)
        finetune(again)
    finetune(again)
    assert same_weights(weights(tmp_path / "whole"), weights(tmp_path / "again"))
    assert json.loads((tmp_path / "again/history.json").read_text())["history"][-1]["epoch"] == 4
    pq.write_table(pq.read_table(truth).slice(1), tmp_path / "other.parquet")
    truth.write_bytes((tmp_path / "other.parquet").read_bytes())
    with pytest.raises(OutputError, match="holds another training: truth file"):
        finetune(again)


def test_answers_of_people_are_a_truth(table, truth, tmp_path):
    """Label Studio's JSON-MIN (see tests/golden/make_label_studio.py) gives the same training as a table of the same answers."""
    tasks = [{"shard": t["shard"], "row": t["row"], "label": t["kind"]} for t in pq.read_table(truth).to_pylist()]
    (tmp_path / "project.json").write_text(json.dumps(tasks))
    one, other = (
        StoredEmbeddings(config(table, tmp_path, {"truth": str(file), "target_column": "kind"}).source)
        for file in (truth, tmp_path / "project.json")
    )
    assert one.target_names == other.target_names == ["even high", "even low", "odd high", "odd low"]
    assert one.truth.targets.equals(other.truth.targets) and one.truth.index.equals(other.truth.index)


def test_what_cannot_be_is_said_before_anything_is_written(table, truth, checkpoint, tmp_path):
    new = tmp_path / "new"
    for sections, error in (
        ({"train": {"freeze": "none"}}, "set train.freeze to backbone"), ({"compute": {"workers": 2}}, "keep compute.workers 1"),
        ({"source": {"type": "parquet"}, "train": {"class_weights": "balanced"}}, "class_weights goes with source.type output"),
        ({"source": {"type": "parquet", "truth": "x"}}, "truth and truth_on go with type output"),
        ({"validation": {"source": {"path": "x", "target_column": "y"}}}, "must both be of type output"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=error):
            config(table, new, **sections)
    with pytest.raises(CheckpointError, match="its backbone .* is not the one that made the embeddings"):
        make_plan(config(table, new, checkpoint=checkpoint))
    with pytest.raises(SourceError, match="there is no column kind"):
        make_plan(config(table, new, {"target_column": "kind"}))
    wrong = ({"truth_on": ["nothing"]}, "the output has no column nothing"), ({"target_column": "x"}, "has no column x")
    for source, error in wrong:
        with pytest.raises(SourceError, match=error):
            make_plan(config(table, new, {"truth": str(truth), "target_column": "kind"} | source))
    assert not new.exists()


def test_rare_classes_are_drawn_as_often_where_asked_for(table, rows, tmp_path):
    """Classes that say nothing of the image, one of them rare: who knows only the odds never says it, or half the time."""
    file, random = tmp_path / "truth.parquet", np.random.default_rng(0)
    kinds = np.where(random.random(len(rows)) < 0.1, "rare", "other")
    pq.write_table(rows.select(["shard", "row"]).append_column("kind", pa.array(kinds)), file)
    said = {}
    for asked in (None, "balanced"):
        source, train = {"truth": str(file), "target_column": "kind"}, {"epochs": 5, "keep": "last", "class_weights": asked}
        finetune(config(table, tmp_path / f"{asked}", source, train=train))
        task = prepare(str(table), str(tmp_path / f"{asked}"), str(tmp_path / f"{asked}-new"))
        labels = rescore(task).metrics["labels"]
        said[asked] = labels.get(str(task.checkpoint.class_names.index("rare")), 0) / sum(labels.values())
    assert said[None] < 0.1 and 0.25 < said["balanced"] < 0.75


def test_a_teacher_s_column_trains_the_second_head(table, tmp_path):
    start = other_head(tmp_path / "start")
    finetune(config(table, tmp_path / "head", {"teacher_column": "label"}, start, train={"epochs": 8}))
    model, before = load_checkpoint(str(tmp_path / "head")).model, load_checkpoint(str(start)).model
    assert not torch.equal(model.classifier_distill.linear.weight, before.classifier_distill.linear.weight)
