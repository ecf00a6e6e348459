"""What the command says and how it ends, without Ray: every mistake is one line and exit code 2."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.job.load import load_config
from pipelines import cli
from pipelines.cluster import session as cluster
from pipelines.label.prepare import prepare
from tests.support import DIGITS, ROOT
from tests.support.jobs import Job


def run(capsys, *arguments):
    code = cli.main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
def job(tmp_path, checkpoint):
    return Job(tmp_path, checkpoint)


def test_help_imports_neither_torch_nor_ray():
    heavy = "{'torch', 'ray', 'datasets'}"
    code = f"import sys; from pipelines.cli import parser; parser(); print(sorted({heavy} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_a_command_ends_at_once_but_says_all_and_leaves_no_temporary_folder():
    code = "import tempfile; from pipelines.cli import leave; made = tempfile.TemporaryDirectory(); print(made.name); leave(3)"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 3 and ended.stderr == ""
    assert ended.stdout.startswith("/") and not Path(ended.stdout.strip()).exists()


def test_every_command_has_help(capsys):
    for command in cli.COMMANDS:
        with pytest.raises(SystemExit) as ended:
            cli.main([command, "--help"])
        assert ended.value.code == 0 and f"levit-batch {command}" in capsys.readouterr().out


def test_plan_changes_nothing(capsys, job):
    code, out, err = run(capsys, "plan", job.file)
    assert code == 0 and err == "" and not job.output.exists()
    assert "4 shards, 899 rows, 16 chunks" in out and "pending    899 rows in 16 chunks" in out
    code, out, _ = run(capsys, "plan", job.file, "--json", "--limit", 100)
    assert json.loads(out)["pending"] == {"chunks": 2, "rows": 100}


@pytest.mark.parametrize("address", ["null", "auto"])
def test_plan_knows_the_device_that_run_finds(capsys, monkeypatch, tmp_path, address):
    """A GPU that a system file and torch tell of; the output as `run` begins it there."""
    monkeypatch.setattr(cluster, "GPU_DEVICES", ("null",))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    settings = [f"output.path={tmp_path}", "source.path=configs/demo/label/*.parquet"]
    config = load_config("configs/demo.yaml", settings)
    prepared = prepare(config, cluster.uses_gpu(config.compute))
    prepared.write_job()
    assert prepared.output.read_json("job.json")["dtype"] == "float16"
    more = [part for setting in [*settings, f"compute.address={address}"] for part in ("--set", setting)]
    code, out, err = run(capsys, "plan", "configs/demo.yaml", *more)
    assert (code, err) == (0, "") and "float16" in out and ("assumed" in out) == (address == "auto")


def test_schema_is_json(capsys):
    code, out, _ = run(capsys, "schema")
    assert code == 0 and json.loads(out)["properties"]["source"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sauce.path=x", "unknown key sauce: did you mean source?"),
        ("source.path=nothing/here/*.parquet", "source.path: nothing found at nothing/here/*.parquet (relative to "),
        ("source.path=/nothing/here", "source.path: nothing found at /nothing/here"),
        ("source.image_column=imag", "source.image_column: there is no column imag; did you mean image?"),
        ("source.target_column=lable", "did you mean label?"),
        ("source.keep_columns=[indexx]", "source.keep_columns: there is no column indexx; did you mean index?"),
        ("source.keep_columns=[label, source_Label]", "label and source_Label would both be called source_Label"),
        ("source.image_column=label", "source.image_column"),
        ("source.image_column=image.path", "source.image_column: image.path is string, the path of each image: set source.root"),
        ("model.checkpoint=/nothing/here", "/nothing/here"),
        ("predict.top_k=11", "predict.top_k: 11 is more than the checkpoint's 10 classes"),
        ("source.path=ftp://x/y", "the scheme ftp:// is not known"),
    ],
)
def test_mistakes(capsys, job, override, message):
    code, out, err = run(capsys, "plan", job.file, "--set", override)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1 and err.startswith("levit-batch: ")


def test_an_output_that_cannot_be_written(capsys, job):
    job.output.write_text("a file stands in the way")
    code, _, err = run(capsys, "run", job.file)
    assert code == 2 and err.splitlines()[-1].startswith("levit-batch: ") and str(job.output) in err


def test_a_disk_or_store_that_fails_is_one_line(capsys, job, monkeypatch):
    """Wherever it happens; another exception is a bug, and keeps its traceback."""
    failure = OSError(5, "Input/output error", "s3://KEY:SECRET@bucket/x")
    monkeypatch.setattr("pipelines.label.prepare.make_plan", lambda *_, **__: (_ for _ in ()).throw(failure))
    code, _, err = run(capsys, "plan", job.file)
    assert code == 1 and "Input/output error" in err and err.count("\n") == 1 and "SECRET" not in err
    monkeypatch.setattr("pipelines.label.prepare.make_plan", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(capsys, "plan", job.file)


def test_damaged_and_empty_shards(capsys, job, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    code, _, err = run(capsys, "plan", job.file, "--set", f"source.path={data}")
    assert code == 2 and "nothing found" in err
    (data / "x.parquet").write_bytes(next(DIGITS.glob("*.parquet")).read_bytes()[:5000])
    code, _, err = run(capsys, "plan", job.file, "--set", f"source.path={data}")
    assert code == 2 and "x.parquet" in err and err.count("\n") == 1
    schema = pq.read_schema(next(DIGITS.glob("*.parquet")))
    pq.write_table(schema.empty_table(), data / "x.parquet")
    code, out, _ = run(capsys, "plan", job.file, "--set", f"source.path={data}")
    assert code == 0 and "1 shard, 0 rows, 0 chunks" in out


def test_a_checkpoint_that_is_no_levit(capsys, job, tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/config.json").write_text('{"model_type": "vit"}')
    code, _, err = run(capsys, "plan", job.file, "--set", f"model.checkpoint={tmp_path / 'bad'}")
    assert code == 2 and "bad" in err and err.count("\n") == 1


def test_a_target_that_is_no_class(capsys, job, tmp_path):
    table = pq.read_table(next(DIGITS.glob("*.parquet")))
    pq.write_table(
        table.set_column(table.schema.get_field_index("label"), "label", pa.array([0.5] * table.num_rows)),
        tmp_path / "x.parquet",
    )
    code, _, err = run(capsys, "plan", job.file, "--set", f"source.path={tmp_path / 'x.parquet'}")
    assert code == 2 and "source.target_column is double" in err


@pytest.fixture
def hub(hub):
    data = hub.folder / "datasets/org/digits/data"
    data.mkdir(parents=True)
    for path in DIGITS.glob("*.parquet"):
        shutil.copy(path, data / path.name.replace("digits", "train"))
    return hub


ON_THE_HUB = ("--set", "source.type=huggingface", "--set", "source.path=org/digits", "--set", "source.split=train")


def test_a_dataset_on_the_hub_is_planned_and_its_commit_named(capsys, job, hub):
    code, out, err = run(capsys, "plan", job.file, "--json", *ON_THE_HUB)
    assert code == 0, err
    said = json.loads(out)
    assert said["rows"] == 899 and len(said["source"]["revision"]) == 40


@pytest.mark.parametrize("what", ["source", "model"])
def test_a_gated_repository_without_a_token(capsys, job, hub, what):
    hub.gate("org/digits")
    (hub.folder / "models/org/digits").mkdir(parents=True)
    (hub.folder / "models/org/digits/config.json").write_text("{}")
    settings = ON_THE_HUB if what == "source" else ("--set", "model.checkpoint=org/digits")
    code, out, err = run(capsys, "plan", job.file, *settings)
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "org/digits" in err and "HF_TOKEN" in err and "accept" in err
