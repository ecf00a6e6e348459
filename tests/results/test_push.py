"""Uploads to a local server that speaks the Hub's API, by the Hub's own client."""

import datasets
import pytest

from levit_batch.storage.place import place
from pipelines.cli import main
from tests.support.outputs import CLASSES, make_output


@pytest.fixture
def hub(hub, monkeypatch):
    hub.tokens.add("hf_good")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    return hub


@pytest.fixture
def made(tmp_path):
    made = make_output(tmp_path)
    assert main(["evaluate", str(made.path)]) == 0
    return made


def remote(hub) -> set[str]:
    folder = hub.folder / "datasets/tester/labels"
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def local(made) -> set[str]:
    return {str(file.relative_to(made.path)) for file in (made.path / "data").rglob("*.parquet") if file.is_file()}


def test_push_and_load_it_back(hub, made, capsys):
    (made.path / "_lock").write_text("{}")
    (made.path / "mine.txt").write_text("not for the Hub")
    capsys.readouterr()
    assert main(["push", str(made.path), "tester/labels", "--private"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{hub.url}/datasets/tester/labels"
    assert remote(hub) == local(made) | {"README.md", "metrics.json", "report.html", "job.json"}
    assert "tester/labels" in hub.private
    rows = datasets.load_dataset("tester/labels", split="train", token="hf_good")
    assert rows.num_rows == 120 and rows.features["label"].names == list(CLASSES)
    assert rows["label"][:] == made.table["label"].to_pylist()


def test_a_second_push_replaces_what_changed_and_only_that(hub, made, capsys):
    assert main(["push", str(made.path), "tester/labels"]) == 0
    theirs = hub.folder / "datasets/tester/labels"
    (theirs / "data/mine.parquet").write_bytes(b"someone else's")
    old = min(made.folder("part-01.parquet").iterdir())
    old.rename(old.with_name(old.name.replace(old.name.split(".")[1], "0badc0de")))
    assert main(["push", str(made.path), "tester/labels"]) == 0
    expected = local(made) | {"README.md", "metrics.json", "report.html", "job.json", "data/mine.parquet"}
    assert remote(hub) == expected and any("0badc0de" in name for name in expected)


def test_from_a_store(hub, s3, made):
    """The same files, in one commit; what the output no longer has goes, what is another's stays."""
    assert main(["push", str(made.path), "tester/labels"]) == 0
    theirs = hub.folder / "datasets/tester/labels"
    (theirs / "data/mine.parquet").write_bytes(b"someone else's")
    before, url = remote(hub), f"s3://{s3.bucket}/pushed"
    gone = min(made.folder("part-01.parquet").iterdir())
    for file in made.path.rglob("*"):
        if file.is_file() and file != gone and not file.is_relative_to(made.path / "_staging"):
            place(url).join(str(file.relative_to(made.path))).write_bytes(file.read_bytes())
    assert main(["push", url, "tester/labels"]) == 0
    assert before - remote(hub) == {str(gone.relative_to(made.path))} and remote(hub) < before
    for name in local(made) - {str(gone.relative_to(made.path))}:
        assert (theirs / name).read_bytes() == (made.path / name).read_bytes()


def test_a_busy_hub(hub, made, capsys):
    hub.fail_every(4, status=503)
    assert main(["push", str(made.path), "tester/labels"]) == 0
    hub.fail_every(0)
    assert local(made) <= remote(hub)


@pytest.mark.parametrize(
    ("token", "said"),
    [(None, "no Hugging Face token; log in with `hf auth login`"), ("hf_bad", "the token is not valid")],
)
def test_without_a_token_that_may(hub, made, capsys, monkeypatch, token, said):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    capsys.readouterr()
    assert main(["push", str(made.path), "tester/labels"]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1 and "hf_bad" not in err


def test_a_hub_that_is_not_there(made, hub, capsys, monkeypatch):
    from huggingface_hub import hf_api

    monkeypatch.setattr(hf_api.api, "endpoint", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert main(["push", str(made.path), "tester/labels"]) == 2
    assert "the Hub does not answer" in capsys.readouterr().err


def test_what_cannot_be_pushed(hub, tmp_path, made, capsys):
    assert main(["push", str(made.path), "no/such/name/x"]) == 2
    assert "is not a repository name" in capsys.readouterr().err
    (made.path / "metrics.json").unlink()
    assert main(["push", str(made.path), "tester/labels"]) == 2
    assert "has no metrics.json; `levit-batch evaluate" in capsys.readouterr().err
