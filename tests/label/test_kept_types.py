"""Two nights over shards of two types: the table has one, whichever shard comes first; the plan says what the run would."""

import json
from types import SimpleNamespace

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import SourceError
from levit_batch.job.load import load_config
from pipelines.label.prepare import prepare
from tests.support.jobs import Job
from tests.support.shards import pictures, table


def write_shard(folder, name, kind, values):
    images = table(pictures()[: len(values)]).select(["image"])
    folder.mkdir(exist_ok=True)
    pq.write_table(images.append_column("index", pa.array(values, kind)), folder / name)


@pytest.fixture
def night(tmp_path, checkpoint):
    """A job over `folder`, planned (`prepare`) or run."""
    folder = tmp_path / "in"
    job = Job(tmp_path, checkpoint, source={"path": str(folder), "target_column": None, "keep_columns": ["index"]})
    return SimpleNamespace(
        folder=folder, job=job, prepare=lambda afresh=False: prepare(load_config(job.file), False, afresh=afresh)
    )


def types(job):
    return {pq.read_schema(file).field("index").type for file in job.chunks()}


def test_a_wider_shard_that_comes_first_the_next_night_is_refused_until_overwrite(night):
    write_shard(night.folder, "b.parquet", pa.int32(), [1, 2, 3])
    assert night.job.run().returncode == 0
    write_shard(night.folder, "Z.parquet", pa.int64(), [2**40])
    for command in ("plan", "run"):
        refused = night.job.run(command)
        assert refused.returncode == 2, refused.stderr
        line = refused.stderr.strip().splitlines()[-1]
        assert f"{night.folder}/Z.parquet: column index is int64 here and int32 in the table that is there" in line
        assert "--overwrite" in line
    assert types(night.job) == {pa.int32()} and night.job.table()["index"].to_pylist() == [1, 2, 3]
    assert night.job.run("run", "--overwrite").returncode == 0
    assert types(night.job) == {pa.int64()} and night.job.table()["index"].to_pylist() == [2**40, 1, 2, 3]


def test_a_narrower_shard_that_comes_first_the_next_night_is_cast(night):
    write_shard(night.folder, "b.parquet", pa.int64(), [2**40, 2])
    assert night.job.run().returncode == 0
    write_shard(night.folder, "a.parquet", pa.int32(), [7])
    plan = json.loads(night.job.run("plan", "--json").stdout)
    assert plan["pending"] == {"chunks": 1, "rows": 1} and "index: int64" in plan["columns"]
    second = night.job.run()
    assert second.returncode == 0, second.stderr
    assert types(night.job) == {pa.int64()}
    assert pd.read_parquet(night.job.output / "data")["index"].tolist() == [7, 2**40, 2]
    rows = datasets.load_dataset(str(night.job.output), split="train", cache_dir=str(night.folder.parent / "cache"))
    assert sorted(rows["index"]) == [2, 7, 2**40]


def test_a_job_that_was_killed_before_its_first_chunk_has_its_types(night):
    write_shard(night.folder, "b.parquet", pa.int64(), [1])
    night.prepare().write_job()
    assert night.job.chunks() == []
    write_shard(night.folder, "a.parquet", pa.int32(), [7])
    assert night.prepare().spec.kept.field("index").type == pa.int64()
    with pytest.raises(SourceError, match=r"b\.parquet: column index is int64 here and int32 in the first shard"):
        night.prepare(afresh=True)


def test_what_the_card_says_of_a_column_fits_its_type(night):
    write_shard(night.folder, "b.parquet", pa.int64(), [1])
    night.prepare().write_job()
    write_shard(night.folder, "a.parquet", pa.int32(), [7])
    rows = datasets.Dataset.from_dict({"index": [1]}, datasets.Features({"index": datasets.Value("int32")}))
    metadata = rows.features.arrow_schema.metadata
    first = pq.read_table(night.folder / "a.parquet")
    pq.write_table(first.replace_schema_metadata(metadata), night.folder / "a.parquet")
    prepared = night.prepare()
    said = json.loads(prepared.columns.metadata[b"huggingface"])["info"]["features"]["index"]
    assert said["dtype"] == "int64"
    before = json.loads((night.job.output / "job.json").read_text())["kept_types"]
    prepared.check_output()
    prepared.write_job()
    assert json.loads((night.job.output / "job.json").read_text())["kept_types"] == before


def test_another_job_is_told_of_as_one_though_its_types_differ(night):
    write_shard(night.folder, "b.parquet", pa.int32(), [1])
    night.prepare().write_job()
    other = Job(night.folder.parent / "other", "none", source={"path": str(night.folder / "elsewhere"), "target_column": None,
                "keep_columns": ["index"]}, output={"path": str(night.job.output)})  # fmt: skip
    write_shard(night.folder / "elsewhere", "b.parquet", pa.int64(), [2**40])
    assert prepare(load_config(other.file), False).source.kept().field("index").type == pa.int64()
