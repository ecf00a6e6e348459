"""The same 500 images from every kind of source: the same table each time, with Ray or without. And from S3 to S3, killed."""

import glob
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import SourceError
from levit_batch.job.config import JobConfig
from levit_batch.storage.place import place
from levit_batch.table.output import SHARDS, folder_of
from tests.support import ROOT
from tests.support.hub_server import HubServer
from tests.support.jobs import Job, kill_all, wait_for
from tests.support.models import TINY, signal_model
from tests.support.shards import (
    CLASSES,
    FEATURES,
    open_at,
    pictures,
    table,
    write_folder,
    write_metadata_folder,
    write_parquet,
    write_tars,
)

IMAGES = pictures(500, 96)
WITH_RAY = ("parquet", "webdataset on s3")
KEEP = {"target_column": "label", "keep_columns": ["caption"]}


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Its classes stand in another order than the data's, so that targets are right only when matched by name."""
    folder = tmp_path_factory.mktemp("checkpoint")
    signal_model(TINY.with_labels(["Flower", "vase", "china", "lake", "boat", "sky"])).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory, patch, s3_server):
    """The images in every form."""
    base = tmp_path_factory.mktemp("places")
    (base / "names.txt").write_text("\n".join(CLASSES))
    with HubServer(base / "hub") as hub:
        s3_server.use(patch)
        patch.setenv("PYTHONPATH", str(ROOT))
        hub.use(patch, base / "cache")
        yield base, make_places(base, s3_server, hub) | {"hub server": hub}


def make_places(base, s3, hub):
    names = {"class_names": str(base / "names.txt"), "target_column": "cls", "keep_columns": ["json.caption"]}
    parquet = write_parquet(base / "parquet", IMAGES, shards=4, group=40)
    tars = write_tars(base / "tars", IMAGES, shards=4)
    write_parquet(hub.folder / "datasets/org/pics/data", IMAGES, shards=4, group=40)
    write_folder(hub.folder / "datasets/org/folder/train", IMAGES)
    saved = datasets.Dataset(table(IMAGES), fingerprint="x").cast(FEATURES)
    datasets.DatasetDict({"train": saved}).save_to_disk(base / "saved", num_shards={"train": 3})
    return {
        "parquet": {"path": str(parquet), **KEEP},
        "parquet on s3": {"path": s3.put(parquet, "parquet"), **KEEP},
        "arrow": {"type": "arrow", "path": str(base / "saved"), "split": "train", **KEEP},
        "imagefolder": {
            "type": "imagefolder",
            "path": str(write_folder(base / "folder", IMAGES)),
            "target_column": "label",
        },
        "imagefolder on s3": {
            "type": "imagefolder",
            "path": s3.put(write_metadata_folder(base / "metadata", IMAGES), "metadata"),
            "class_names": str(base / "names.txt"),
            **KEEP,
        },
        "webdataset": {"type": "webdataset", "path": f"{tars}/train-{{00000..00003}}.tar", **names},
        "webdataset on s3": {"type": "webdataset", "path": s3.put(tars, "tars"), **names},
        "hub": {"type": "huggingface", "path": "org/pics", **KEEP},
        "hub folder": {"type": "huggingface", "path": "org/folder", "target_column": "label"},
    }


def run(base, made, checkpoint, name, drop_vanished=False, **source):
    """Run the job; how it ended and its output folder."""
    from pipelines.label.run import run_job

    output = base / "out" / name.replace(" ", "-")
    values = {
        "source": made.get(name, {}) | source,
        "model": {"checkpoint": str(checkpoint)},
        "predict": {"top_k": 3},
        "output": {"path": str(output)},
        "compute": {"engine": "ray" if name in WITH_RAY else "local", "replicas": 2, "chunk_rows": 60},
    }
    return run_job(JobConfig.model_validate(values), drop_vanished=drop_vanished), output


def label(base, made, checkpoint, name):
    """The job's table in the source's order, without what says where a row comes from."""
    result, output = run(base, made, checkpoint, name)
    assert (result.exit_code, result.metrics["rows"], result.metrics["errors"]) == (0, len(IMAGES), {})
    source = open_at(**made[name])
    parts = []
    for shard in source.shards():
        files = sorted((output / "data" / folder_of(shard.name)).glob("*.parquet"))
        parts += [pq.read_table(file, partitioning=None) for file in files]
    rows = pa.concat_tables(parts)
    captions = next((column for column in ("caption", "json.caption") if column in rows.schema.names), None)
    assert captions is None or rows[captions].to_pylist() == [p.caption for p in IMAGES]
    unlike = ("shard", "row", "caption", "json.caption", "file_name")
    kept = [column for column in rows.schema.names if column not in unlike]
    return rows.select(kept).replace_schema_metadata()


@pytest.fixture(scope="module")
def expected(places, checkpoint):
    rows = label(*places, checkpoint, "parquet")
    assert rows["target"].to_pylist() == [2] * 250 + [0] * 250
    assert len(set(rows["label"].to_pylist())) > 2, "the model tells images apart"
    return rows


@pytest.mark.parametrize(
    "name",
    [
        "parquet on s3",
        "arrow",
        "imagefolder",
        "imagefolder on s3",
        "webdataset",
        "webdataset on s3",
        "hub",
        "hub folder",
    ],
)
def test_the_same_images_make_the_same_table(places, checkpoint, expected, name):
    hub = places[1]["hub server"]
    hub.fail_every(5)
    rows = label(*places, checkpoint, name)
    hub.fail_every(0)
    same = ("target", "label", "label_name", "error")
    assert rows.schema.equals(expected.schema)
    assert rows.select(same).equals(expected.select(same))
    for column in ("score", "embedding"):
        one, other = (t[column].combine_chunks() for t in (rows, expected))
        if column == "embedding":
            one, other = one.flatten(), other.flatten()
        gap = abs(one.to_numpy(zero_copy_only=False) - other.to_numpy(zero_copy_only=False)).max()
        assert gap < 5e-3


def test_a_folder_whose_shards_are_cut_anew_holds_every_file_once(places, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("levit_batch.sources.imagefolder_runs.MEAN_ROWS", 25)
    folder = write_folder(tmp_path / "in", IMAGES[:120])
    source = {"type": "imagefolder", "path": str(folder), "keep_columns": ["file_name"]}
    names = [shard.name for shard in open_at(**source).shards()]
    assert len(names) > 2
    _, output = run(*places, checkpoint, "cut", **source)
    (folder / names[1]).unlink()
    (folder / "china" / "0007a.jpeg").write_bytes(IMAGES[0].data)
    result, _ = run(*places, checkpoint, "cut", **source)
    assert result.record["shards"]["vanished"]["count"] == 0 and 0 < result.record["rows"] < 120
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*"))
    assert names_in(output) == files and result.metrics["rows"] == 120 and result.record["rows_gone"] == 1


def names_in(output):
    """The files that the table has rows of, by a glob that finds folders, too."""
    files = glob.glob(f"{output}/data/**/*.parquet", recursive=True)
    return sorted(name for file in files for name in pq.read_table(file, partitioning=None)["file_name"].to_pylist())


def test_files_that_are_missing_tonight_keep_their_rows(places, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("levit_batch.sources.imagefolder_runs.MEAN_ROWS", 25)
    folder = write_folder(tmp_path / "in", IMAGES[210:290])
    source = {"type": "imagefolder", "path": str(folder)}
    _, output = run(*places, checkpoint, "gone", **source)
    before = names_in(output)
    (folder / "flower").rename(tmp_path / "unmounted")
    with pytest.raises(SourceError, match="40 of the output's 80 rows are of files that are not there any more .*flower/"):
        run(*places, checkpoint, "gone", **source)
    assert names_in(output) == before
    result, _ = run(*places, checkpoint, "gone", drop_vanished=True, **source)
    assert names_in(output) == [name for name in before if name.startswith("china/")]
    assert result.metrics["rows"] == 40 and result.record["rows_gone"] == 40
    assert '"rows": 40' in (output / "metrics.json").read_text()


def test_from_s3_to_s3_through_kill_9(places, checkpoint, expected, tmp_path):
    base, made = places
    out = "s3://pictures/out"
    job = Job(
        tmp_path,
        checkpoint,
        source=made["parquet on s3"],
        output={"path": out},
        compute={"chunk_rows": 20, "engine": "ray"},
    )

    def written():
        return [info.path for info in place(f"{out}/data").list() if info.is_file]

    process = job.start()
    wait_for(lambda: len(written()) >= 2 or process.poll() is not None, 240)
    kill_all(process)
    killed = len(written())
    assert 2 <= killed < 28
    said = job.run("run", "--json")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["run"]["skipped"]["chunks"] >= killed - 1
    files = sorted(written())
    rows = pa.concat_tables(pq.read_table(path, filesystem=place(out).filesystem, partitioning=None) for path in files)
    assert rows.num_rows == len(IMAGES)
    assert rows["caption"].to_pylist() == [p.caption for p in IMAGES]
    assert rows["label"].to_pylist() == expected["label"].to_pylist()
    # Arrow leaves a marker of the folder where it deletes an object; a file would be a leftover.
    left = {info.path.rpartition("/")[2] for info in place(out).list() if "/_" in info.path and info.is_file}
    assert left <= {SHARDS}
