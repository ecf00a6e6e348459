"""`levit-batch finetune` from end to end: what it reaches, what it writes, and that it can be killed at any time."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from levit_batch.errors import ConfigError, OutputError, SourceError
from levit_batch.job.load import load_config
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.pixels.preprocess import Preprocessor
from levit_batch.training.config import FinetuneConfig
from levit_batch.training.student import Normalise
from pipelines.cli import main
from pipelines.finetune.plan import make_plan
from pipelines.finetune.run import finetune
from tests.support.shards import pictures, write_folder
from tests.support.trainings import CONFIGS, DEMO, SMALL, accuracy, config, held_out, same_weights, weights

ROOT = CONFIGS.parent


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A small finished training with two heads and drop path."""
    folder = tmp_path_factory.mktemp("trained") / "out"
    finetune(config(folder, "train.drop_path=0.1"))
    return folder


@pytest.mark.parametrize("way", ["source.teacher_column=teacher", "source.teacher_column=null"])
def test_both_ways_read_the_held_out_digits(tmp_path, way):
    finetune(config(tmp_path, way, "train.epochs=20", small=False))
    assert accuracy(tmp_path) >= 0.97
    assert hasattr(load_checkpoint(str(tmp_path)).model, "classifier_distill") == ("null" not in way)


def test_shipped_checkpoint_is_what_the_shipped_configuration_trains(monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = CONFIGS / "demo" / "levit-digits"
    record = json.loads((folder / "history.json").read_text())
    _, values = make_plan(config(folder, "source.path=configs/demo/train/*.parquet", small=False))
    differing = {key for key in values if record["values"].get(key) != values[key]}
    assert differing <= {"shards"}  # a clone has other file times
    assert accuracy(folder) >= 0.98
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2_100_000
    assert (folder / "model.safetensors").stat().st_size < 2_000_000


@pytest.mark.parametrize("heads", [1, 2])
def test_checkpoint_gives_the_same_logits_in_transformers(tmp_path, heads):
    import transformers

    way = (f"model={{checkpoint: {CONFIGS}/demo/levit-digits}}", "source.limit=128", "train.drop_path=0.3")
    finetune(config(tmp_path, *way, *(() if heads == 2 else ("source.teacher_column=null",))))
    name = "LevitForImageClassification" + ("WithTeacher" if heads == 2 else "")
    theirs, said = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(said[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    checkpoint = load_checkpoint(str(tmp_path))
    digits, _ = Preprocessor(checkpoint.processor)(held_out()[0][1:33])
    pixels = Normalise(checkpoint.processor)(torch.from_numpy(digits))
    with torch.no_grad():
        ours, other = checkpoint.model(pixels), theirs.eval()(pixels)
    torch.testing.assert_close(ours.logits, other.logits, rtol=0, atol=1e-4)
    assert ours.logits.std(dim=0).min() > 0.1 and theirs.config.id2label[7] == "seven"
    if heads == 2:
        torch.testing.assert_close(ours.distillation_logits, other.distillation_logits, rtol=0, atol=1e-4)


def test_folder_holds_the_checkpoint_and_the_record_and_nothing_else(trained):
    names = {"config.json", "preprocessor_config.json", "model.safetensors", "history.json", "learning_curve.svg"}
    found = {file.name for file in trained.iterdir()}
    assert found - {"README.md"} == names
    record = json.loads((trained / "history.json").read_text())
    assert [entry["epoch"] for entry in record["history"]] == [1, 2]
    assert {"loss", "accuracy", "validation_loss", "validation_accuracy", "learning_rate", "seconds", "skipped"} <= set(
        record["history"][0]
    )
    curve = (trained / "learning_curve.svg").read_text()
    assert curve.count("<svg") == 1 and "validation" in curve and "training" in curve
    assert (trained / "model.safetensors").stat().st_mode & 0o044 == 0o044 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_finished_training_is_not_repeated(trained):
    before = (trained / "model.safetensors").stat().st_mtime_ns
    half = [trained / f".history.json.{pid}.0123abcd.tmp" for pid in (1 << 30, os.getpid())]  # of a dead one, of a living one
    for file in half:
        file.write_bytes(b"half")
    record = finetune(config(trained, "train.drop_path=0.1"))
    assert len(record["history"]) == 2 and (trained / "model.safetensors").stat().st_mtime_ns == before
    assert [file.exists() for file in half] == [False, True]
    half[1].unlink()


def test_another_training_in_the_same_folder_is_refused_with_the_difference(trained):
    with pytest.raises(OutputError, match=r"train.epochs was 2 and is 3.*--overwrite"):
        finetune(config(trained, "train.drop_path=0.1", "train.epochs=3"))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_start_that_trained_nothing_does_not_claim_the_folder(tmp_path, workers):
    folder, settings = tmp_path / "out", ("source.limit=64", f"compute.workers={workers}")
    with pytest.raises(SourceError, match="not one batch of 512 usable .*a smaller train.batch_size"):
        finetune(config(folder, *settings, "train.batch_size=512"))
    assert not folder.exists()
    (folder / "_training").mkdir(parents=True)
    (folder / "_training" / "values.json").write_text('{"train.batch_size": 512}')  # of a start that was killed
    assert finetune(config(folder, *settings[:1]))["values"]["train.batch_size"] == 32


def test_overwrite_starts_afresh_and_spares_what_is_not_ours(tmp_path):
    folder = tmp_path / "out"
    finetune(config(folder, "source.limit=64"))
    (folder / "notes.txt").write_text("mine")
    record = finetune(config(folder, "source.limit=64", "train.seed=5"), overwrite=True)
    assert record["values"]["train.seed"] == 5 and (folder / "notes.txt").read_text() == "mine"


def test_checkpoint_from_elsewhere_is_not_overwritten(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputError, match="not a training's"):
        finetune(config(tmp_path))
    assert (tmp_path / "model.safetensors").read_bytes() == b"precious" and not (tmp_path / "_training").exists()


KILLED = ("train.epochs=4", "train.drop_path=0.2", "train.save_steps=3", "source.limit=500", "train.keep=best",
          "train.precision=bfloat16")  # fmt: skip


def command(folder: Path, *overrides: str) -> list[str]:
    words = [f"source.path={CONFIGS}/demo/train", f"output.path={folder}", *SMALL, *overrides]
    sets = [word for override in words for word in ("--set", override)]
    return [sys.executable, "-m", "pipelines.cli", "finetune", str(DEMO), *sets]


def start(folder: Path, *overrides: str) -> subprocess.Popen:
    return subprocess.Popen(command(folder, *overrides), cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE)


def stamp(folder: Path) -> int:
    try:
        return (folder / "_training" / "state.pt").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def test_killed_training_goes_on_to_the_same_weights(tmp_path):
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    finetune(config(undisturbed, *KILLED))
    rng, kills = random.Random(time.time_ns()), 0
    while kills < 3:
        process, before = start(killed, *KILLED), stamp(killed)
        while process.poll() is None and stamp(killed) == before:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            break  # it was faster than the kill, and is finished
        kills += 1
    assert kills and (killed / "_training" / "state.pt").exists() or (killed / "history.json").exists()
    last = start(killed, *KILLED)
    assert last.wait() == 0, last.stderr.read().decode()
    assert same_weights(weights(undisturbed), weights(killed))
    histories = [json.loads((folder / "history.json").read_text())["history"] for folder in (undisturbed, killed)]
    for entry in (*histories[0], *histories[1]):
        del entry["seconds"]
    assert histories[0] == histories[1]
    assert not (killed / "_training").exists() and kills > 0


@pytest.mark.parametrize(("workers", "number"), [(1, signal.SIGTERM), (2, signal.SIGINT)])
def test_an_interrupted_training_says_how_to_go_on(tmp_path, workers, number):
    process = start(tmp_path, "train.epochs=4000", f"compute.workers={workers}")
    while process.poll() is None and not stamp(tmp_path):
        time.sleep(0.01)
    process.send_signal(number)
    said = process.communicate()[1].decode()
    assert process.returncode == 130 and "interrupted; what is written stays. Go on with: levit-batch finetune" in said
    assert "Traceback" not in said


def test_two_trainings_in_one_folder_do_not_mix(tmp_path):
    first = start(tmp_path, "train.epochs=400")
    while first.poll() is None and not stamp(tmp_path):
        time.sleep(0.01)
    try:
        with pytest.raises(OutputError, match="another training is writing"):
            finetune(config(tmp_path, "train.epochs=400"))
    finally:
        first.kill()
        first.communicate()


def test_two_workers_reach_what_one_reaches_even_when_one_is_killed(tmp_path):
    settings = ("train.epochs=6", "train.save_steps=10")
    finetune(config(tmp_path / "one", *settings, small=False))
    victims: list[int] = []

    def kill_once() -> None:
        while stamp(tmp_path / "two") == 0:
            time.sleep(0.01)
        for child in psutil.Process().children(recursive=True):
            if "RayTrainWorker" in " ".join(child.cmdline()) and not victims:
                victims.append(child.pid)
                child.kill()

    killer = threading.Thread(target=kill_once, daemon=True)
    killer.start()
    events: list = []
    record = finetune(config(tmp_path / "two", *settings, "compute.workers=2", small=False), report=events.append)
    one, two = accuracy(tmp_path / "one"), accuracy(tmp_path / "two")
    assert victims and min(one, two) > 0.95 and abs(one - two) < 0.02
    assert [entry["epoch"] for entry in record["history"]] == list(range(1, 7))
    assert [event["entry"] for event in events if "entry" in event] == record["history"]
    assert (
        record["history"][0]["validation_rows"]
        == json.loads((tmp_path / "one" / "history.json").read_text())["history"][0]["validation_rows"]
    )


def test_mistake_that_only_workers_find_is_one_error(tmp_path):
    with pytest.raises(SourceError, match="not one batch of 32 usable"):
        finetune(config(tmp_path, "source.limit=20", "compute.workers=2"))


MISTAKES = {
    "train.epoch=3": "unknown key train.epoch: did you mean epochs?",
    "source.target_column=lable": "there is no column lable; did you mean label?",
    "source.teacher_column=techer": "there is no column techer; did you mean teacher?",
    "source.path=nowhere/*.parquet": "nothing found at nowhere",
    "source.target_column=null": "target_column is required for training",
    "model={checkpoint: nowhere/model}": "nowhere/model",
    "train.batch_size=1": "two or more",
    "compute.workers=3": "the same number of images",
    "teacher.checkpoint=configs/demo/levit-digits": "two teachers; keep one",
    "output.path=s3://bucket/x": "a training writes to a disk",
    "output.path=/proc/nothing": "cannot be written",
}


@pytest.mark.parametrize(("override", "says"), MISTAKES.items())
def test_mistake_is_one_line_and_exit_code_2(tmp_path, monkeypatch, capsys, override, says):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("levit_batch.storage.retry.FIRST_WAIT", 0.01)  # for a Hub that is not there
    code = main(["finetune", str(DEMO), "--set", f"output.path={tmp_path / 'out'}", "--set", override])
    error = capsys.readouterr().err.strip()
    assert code == 2 and says in error and "\n" not in error
    assert not (tmp_path / "out").exists()


def test_folder_a_class_is_learnt_by_a_linear_probe_and_goes_on_from_there(tmp_path):
    write_folder(tmp_path / "photos", pictures(60, 64))
    source = f"source={{type: imagefolder, path: {tmp_path}/photos, target_column: label}}"
    small = ("model.processor={}", "train.batch_size=16", "source.limit=null")
    finetune(config(tmp_path / "first", source, *small, "train.epochs=4"))
    checkpoint = load_checkpoint(str(tmp_path / "first"))
    assert checkpoint.class_names == ["china", "flower"] and checkpoint.model.heads == ("classifier",)
    model = f"model={{checkpoint: {CONFIGS}/demo/levit-digits}}"
    fast = ("train.epochs=15", "train.learning_rate=0.02")
    record = finetune(config(tmp_path / "probe", source, *small, model, "train.freeze=backbone", *fast))
    assert load_checkpoint(str(tmp_path / "probe")).class_names == ["china", "flower"]
    assert record["history"][-1]["accuracy"] > 0.7 > record["history"][0]["accuracy"]
    again = finetune(config(tmp_path / "again", source, *small, f"model={{checkpoint: {tmp_path}/probe}}"))
    assert again["history"][0]["loss"] < record["history"][0]["loss"]


def test_early_stopping_without_validation_is_refused():
    with pytest.raises(ConfigError, match="early_stopping needs validation"):
        config(Path("out"), "train.early_stopping=2", "validation.fraction=0")


def test_command_prints_one_json_object_and_nothing_else(tmp_path):
    process = subprocess.run(
        [*command(tmp_path, "source.limit=64"), "--json"], cwd=ROOT, capture_output=True, text=True
    )
    assert process.returncode == 0 and json.loads(process.stdout)["history"][1]["epoch"] == 2
    assert "epoch 2: loss" in process.stderr


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("finetune_*.yaml")), ids=lambda file: file.name)
def test_shipped_examples_are_valid(file):
    loaded = load_config(str(file), schema=FinetuneConfig)
    assert loaded.distils or loaded.train.freeze == "backbone" or loaded.model.checkpoint
