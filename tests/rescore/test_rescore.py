"""Other heads on a table's embeddings: the labels that they would have given, in a table like any other."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from levit_batch.errors import CheckpointError, ConfigError, OutputError
from levit_batch.inference.fold import fold
from levit_batch.job.load import load_config
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.results.evaluate import evaluate
from levit_batch.table.compact import compact
from levit_batch.table.live import look
from levit_batch.table.read import read_table, require_files
from levit_batch.table.rows import list_matrix
from levit_batch.table.scan import scan
from levit_batch.table.write import read_record, write_chunk
from pipelines.cli import main
from pipelines.label.prepare import prepare as prepare_job
from pipelines.rescore.prepare import prepare
from pipelines.rescore.run import rescore
from tests.support import ROOT
from tests.support.jobs import Job, chunk_files
from tests.support.labelled import DIGITS_MODEL, labelled, other_head
from tests.support.outputs import named_by_manifest

SCORED = {"label", "label_name", "score", "top_labels", "top_scores", "logits"}
KEPT = {"keep_columns": ["image.path"]}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """The digits with errors, targets, a kept column and logits, in chunks of 64 rows; read only."""
    return labelled(tmp_path_factory.mktemp("labelled"), source=KEPT, predict={"logits": True})


@pytest.fixture(scope="module")
def head(tmp_path_factory):
    return other_head(tmp_path_factory.mktemp("head"))


def rescored(of, checkpoint, out, *overrides, **options):
    task = prepare(str(of), str(checkpoint), str(out), overrides, options.pop("temperature", 1.0))
    return rescore(task, **options), task.output


def rows(output):
    return pa.concat_tables([one.replace_schema_metadata() for one in scan(output)]).combine_chunks()


def alike(one, other):
    """The same rows; scores to their last bits, which may depend on how rows lie in memory (numpy 1.26)."""
    floats = ("score", "top_scores", "logits")
    assert one.drop_columns(floats).equals(other.drop_columns(floats))
    for name in floats:
        a, b = (t[name] if name == "score" else pc.list_flatten(t[name]) for t in (one, other))
        assert np.allclose(np.array(a, np.float64), np.array(b, np.float64), rtol=2**-10, equal_nan=True)  # logits are float16
    return True


def float16_error(table, weight):
    """[N]: how far a difference of two logits may be off, as each number of an embedding is off by 2^-11 of itself."""
    return 2 * (np.abs(list_matrix(table["embedding"]).astype(np.float64)) @ np.abs(weight.T)).max(1) * 2**-11


def test_the_same_head_gives_the_same_table(table, tmp_path):
    result, new = rescored(table, DIGITS_MODEL, tmp_path / "new")
    before, after = rows(table), rows(new)
    assert after.schema == before.schema
    same = [name for name in before.schema.names if name not in SCORED]
    assert {"shard", "row", "image.path", "target", "embedding", "error"} <= set(same)
    assert after.select(same).equals(before.select(same)) and after["error"].null_count == 892
    good = [rows.filter(pc.is_null(rows["error"])) for rows in (before, after)]
    weight = fold(load_checkpoint(str(DIGITS_MODEL)).model).head.weight.double().numpy()
    top = np.sort(list_matrix(good[0]["logits"]).astype(np.float64), axis=1)
    sure = top[:, -1] - top[:, -2] > float16_error(good[0], weight)
    labels = [rows["label"].to_numpy() for rows in good]
    assert sure.mean() > 0.97 and (labels[0] == labels[1])[sure].all()
    assert np.abs(good[0]["score"].to_numpy() - good[1]["score"].to_numpy()).max() < 1e-3
    assert result.exit_code == 0 and result.metrics["errors"] == evaluate(table, "left out")["errors"]


def test_it_is_a_table_like_any_other(table, head, tmp_path, capsys):
    args = ["rescore", str(table), "--checkpoint", str(head), "--out", str(tmp_path / "new"), "--json"]
    assert main(args) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["metrics"]["rows"] == 899 and said["run"]["state"] == "done with errors" and said["run"]["rows"] == 899
    new = prepare(str(table), str(head), str(tmp_path / "new")).output
    job, before = new.read_json("job.json"), table.read_json("job.json")
    assert job["rescored"]["fingerprint"] == before["fingerprint"] != job["fingerprint"]
    assert job["rescored"]["path"] == str(table) and job["config"]["source"] == before["config"]["source"]
    assert job["backbone"] == before["backbone"] and job["digest"] != before["digest"] == job["rescored"]["digest"]
    assert named_by_manifest(new) and look(new).manifest.sums["rows"] == 899
    assert not {str(DIGITS_MODEL), str(table)} & set(new.place.join("README.md").read_bytes().decode().split("`"))
    page, card = (new.place.join(name).read_bytes().decode() for name in ("report.html", "README.md"))
    assert "Rescored" in page and before["fingerprint"][:16] in page and "| Rescored |" in card
    pictures = pq.read_table(tmp_path / "new/samples.parquet")
    assert pictures["image"].null_count < len(pictures)
    assert not [path for path in (tmp_path / "new").iterdir() if path.name.startswith("_")]
    assert main(args) == 0 and json.loads(capsys.readouterr().out)["run"]["state"] == "nothing new"


def test_scores_follow_the_options(table, head, tmp_path):
    options = ("predict.top_k=7", "predict.logits=true", "predict.embeddings=none", "model.heads=class", "predict.per_head=true")
    _, new = rescored(table, head, tmp_path / "new", *options, temperature=2.0)
    stored, after = rows(table), rows(new)
    good = pc.is_null(stored["error"])
    stored, after = stored.filter(good), after.filter(good)
    model = load_checkpoint(str(head)).model
    with torch.no_grad():
        embedding = torch.tensor(list_matrix(stored["embedding"])).float()
        logits = model.classifier(embedding) / 2
        distilled = model.classifier_distill(embedding).argmax(-1)
    scores = logits.softmax(-1).topk(7)
    assert "embedding" not in after.schema.names
    np.testing.assert_allclose(list_matrix(after["logits"]), logits.numpy(), atol=1e-4)
    np.testing.assert_allclose(list_matrix(after["top_scores"]), scores.values.numpy(), atol=1e-5)
    assert (after["label"].to_numpy() == scores.indices[:, 0].numpy()).mean() > 0.995
    assert (after["distill_label"].to_numpy() == distilled.numpy()).mean() > 0.995
    assert pc.equal(after["label"], after["head_label"]).to_numpy().all()


def test_targets_go_by_the_names_of_classes(table, tmp_path):
    names = table.read_json("job.json")["class_names"]
    _, turned = rescored(table, other_head(tmp_path / "turned", [*names[3:], *names[:3]]), tmp_path / "new")
    before, after = (rows(output)["target"].drop_null().to_pylist() for output in (table, turned))
    assert [(n - 3) % 10 for n in before] == after
    _, other = rescored(table, other_head(tmp_path / "other", ["cat", "dog"]), tmp_path / "others")
    after = rows(other)
    assert "target" not in after.schema.names and after.schema.field("top_labels").type.list_size == 2
    assert set(after["label_name"].drop_null().to_pylist()) == {"cat", "dog"}
    assert other.read_json("metrics.json")["target"] is None


def test_what_does_not_go_together_is_refused(table, checkpoint, tmp_path):
    new = tmp_path / "new"
    with pytest.raises(CheckpointError, match="its backbone .* is not the one that made the embeddings"):
        prepare(str(table), str(checkpoint), str(new))
    with pytest.raises(ConfigError, match="is the table that is read"):
        prepare(str(table), str(DIGITS_MODEL), str(table))
    for override, error in (
        ("source.limit=3", "--set source.limit=3: only"), ("output.path=x", "only predict"),
        ("predict.top_k=11", "more than the checkpoint's 10"), ("predict.topk=3", "did you mean top_k"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=error):
            prepare(str(table), str(DIGITS_MODEL), str(new), [override])
    with pytest.raises(ConfigError, match="--temperature: 0 must be above 0"):
        prepare(str(table), str(DIGITS_MODEL), str(new), temperature=0)
    values = other_head(tmp_path / "head") / "preprocessor_config.json"
    values.write_text(json.dumps(json.loads(values.read_text()) | {"image_mean": [0.5, 0.5, 0.5]}))
    with pytest.raises(CheckpointError, match=r"its preprocessing is not that of .* \(image_mean\)"):
        prepare(str(table), str(tmp_path / "head"), str(new))
    assert not new.exists()
    bare = labelled(tmp_path / "bare", source={"limit": 20}, predict={"embeddings": "none"})
    with pytest.raises(OutputError, match="its embeddings were not written"):
        prepare(str(bare), str(DIGITS_MODEL), str(new))


def test_one_head_says_what_it_can(tmp_path):
    table = labelled(tmp_path / "labelled", source={"limit": 100}, predict={"per_head": True})
    one = other_head(tmp_path / "one", heads=1)
    for override, error in (("predict.per_head=true", ConfigError), ("model.heads=distill", CheckpointError)):
        with pytest.raises(error, match="head"):
            prepare(str(table), str(one), str(tmp_path / "new"), [override])
    assert not (tmp_path / "new").exists()
    names = rows(rescored(table, one, tmp_path / "new")[1]).schema.names
    assert "label" in names and "head_label" not in names and "head_label" in rows(table).schema.names


def test_each_job_keeps_to_its_own_folder(table, head, tmp_path):
    _, new = rescored(table, DIGITS_MODEL, tmp_path / "job/out")
    job = Job(tmp_path / "job", DIGITS_MODEL, source=KEPT, model={"backend": "torch"}, predict={"logits": True})
    with pytest.raises(OutputError, match="belongs to another job .*rescored from: .* there, null now"):
        prepare_job(load_config(str(job.file)), False).check_output()
    with pytest.raises(OutputError, match="belongs to another job .*weights digest"):
        rescored(table, head, new)
    with pytest.raises(OutputError, match=r"belongs to another job .*temperature: 1.0 there, 3.0 now"):
        rescored(table, DIGITS_MODEL, new, temperature=3.0)
    rescored(table, head, new, overwrite=True)
    assert new.read_json("job.json")["digest"] == load_checkpoint(str(head)).digest and len(rows(new)) == 899


def test_a_table_of_before_asks_its_checkpoint(head, tmp_path):
    old = labelled(tmp_path / "old", source={"limit": 20})
    job = {key: value for key, value in old.read_json("job.json").items() if key != "backbone"}
    old.write_json("job.json", job)
    assert prepare(str(old), str(head), str(tmp_path / "new"))
    for name, error in (("/gone", "/gone cannot be asked"), (str(head), "has other weights today")):
        job["config"]["model"]["checkpoint"] = name
        old.write_json("job.json", job)
        with pytest.raises(CheckpointError, match=error):
            prepare(str(old), str(other_head(tmp_path / "another", seed=2)), str(tmp_path / "new"))
    assert prepare(str(old), str(DIGITS_MODEL), str(tmp_path / "new")), "the same weights need no one's word"


KILLED = """
import os, signal, sys
from pipelines.rescore import score
from pipelines.cli import main
write, left = score.write_chunk, [5]
def deadly(*arguments):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*arguments)
score.write_chunk = deadly
main(sys.argv[1:])
"""


def test_killed_it_goes_on(table, head, tmp_path):
    args = ["rescore", str(table), "--checkpoint", str(head), "--out", str(tmp_path / "new")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *args], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert killed.returncode == -signal.SIGKILL
    done = {file: file.stat().st_mtime_ns for file in chunk_files(tmp_path / "new")}
    assert 1 <= len(done) <= 5
    assert main(args) == 0
    assert all(file.stat().st_mtime_ns == changed for file, changed in done.items())
    _, whole = rescored(table, head, tmp_path / "whole")
    assert rows(prepare(*args[1:2], str(head), args[-1]).output).equals(rows(whole))
    told = [json.loads(record.read_text()) for record in sorted((tmp_path / "new/runs").iterdir())]
    assert [record["state"] for record in told] == ["killed", told[1]["state"]] and told[1]["state"].startswith("done")
    assert sum(record["chunks"] for record in told) == len(chunk_files(tmp_path / "new")) == len(require_files(table))
    assert not [path for path in (tmp_path / "new").rglob("*") if path.name.startswith((".", "_"))]


def test_a_new_table_that_cannot_be_written_is_named_as_it_was_given(table, head, tmp_path, capsys):
    (tmp_path / "new").touch()
    assert main(["rescore", str(table), "--checkpoint", str(head), "--out", str(tmp_path / "new")]) == 2
    assert capsys.readouterr().err.endswith(f"levit-batch: --out: {tmp_path}/new cannot be written: Not a directory\n")


def test_it_follows_its_table(head, tmp_path):
    table = labelled(tmp_path / "job", compute={"chunk_rows": 128})
    _, new = rescored(table, head, tmp_path / "new")
    files = require_files(table)
    again, gone = files[0], files[-1].folder
    record = read_record(again.place)
    chunk = next(c for c in prepare(str(table), str(head), str(tmp_path / "new")).pieces.chunks() if c.shard == record["shard"])
    written = read_table(again.place)
    written = written.set_column(written.schema.get_field_index("error"), "error", [["decode: now broken"] * len(written)])
    write_chunk(table, chunk, written, "f", record | {"run": "99991231T000000.00Z", "errors": {"decode": len(written)}})
    table.delete(file.place for file in files if file.folder == gone)
    before = {file: file.stat().st_mtime_ns for file in chunk_files(tmp_path / "new")}
    result, _ = rescored(table, head, tmp_path / "new")
    assert result.record["rows"] == len(written) and result.metrics["errors"]["decode"] >= len(written)
    changed = [file for file in chunk_files(tmp_path / "new") if file.stat().st_mtime_ns != before[file]]
    assert [file.name for file in changed] == [again.written.name]
    assert not (tmp_path / "new/data" / gone).exists() and result.metrics["rows"] == len(rows(table)) == len(rows(new))


def test_merged_files_and_arrow_files_are_read_as_well(table, head, tmp_path, monkeypatch):
    _, plain = rescored(table, head, tmp_path / "plain")
    merged = labelled(tmp_path / "merged", source=KEPT, predict={"logits": True})
    monkeypatch.setattr("levit_batch.table.merge.ROW_GROUP_ROWS", 50)
    compact(merged, lambda: None)
    monkeypatch.setattr("levit_batch.table.pieces.PIECE_ROWS", 60)
    _, cut = rescored(merged, head, tmp_path / "cut")
    assert rows(cut).equals(rows(plain)) and len(require_files(cut)) > len(require_files(merged))
    compact(cut, lambda: None)
    result, _ = rescored(merged, head, tmp_path / "cut")
    assert result.record["rows"] == 0 and rows(cut).equals(rows(plain))
    arrow = labelled(tmp_path / "arrow", source=KEPT, predict={"logits": True}, output={"format": "arrow"})
    _, streams = rescored(arrow, head, tmp_path / "streams")
    assert alike(rows(streams), rows(plain)) and require_files(streams)[0].place.path.endswith(".arrow")


def test_from_a_store_into_a_store(table, head, tmp_path, s3):
    _, plain = rescored(table, head, tmp_path / "plain")
    stored, new = s3.put(Path(table.place.path), "rescore/labelled"), s3.put(tmp_path / "empty", "rescore/new")
    _, there = rescored(stored, head, new)
    assert rows(there).equals(rows(plain)) and there.read_json("job.json")["rescored"]["path"] == stored
    result, _ = rescored(stored, head, new)
    assert result.record["state"] == "nothing new"
