"""What a run keeps of what it learnt from its source, and a plan does not."""

import json
import os
import shutil

import pyarrow.parquet as pq
import pytest

from levit_batch.errors import ConfigError
from levit_batch.job.load import load_config
from levit_batch.levit.model import LevitForImageClassification
from levit_batch.levit.processor import LevitImageProcessor
from pipelines.label.prepare import prepare
from tests.support import DIGITS
from tests.support.jobs import Job
from tests.support.models import TINY


def over_settled_files(tmp_path, checkpoint):
    """A job over a copy of the demo's shards that nobody wrote to for long, and these files."""
    folder = shutil.copytree(DIGITS, tmp_path / "in")
    files = sorted(folder.glob("*.parquet"))
    for file in files:
        os.utime(file, (1_700_000_000, 1_700_000_000))
    return Job(tmp_path, checkpoint, source={"path": str(folder)}), files


def test_a_run_keeps_what_the_footers_said_for_the_next_night(tmp_path, checkpoint):
    job, files = over_settled_files(tmp_path, checkpoint)
    prepared = prepare(load_config(job.file), False)
    assert not job.output.exists()
    prepared.write_job()
    assert pq.read_metadata(job.output / "_shards.parquet").num_rows == len(files) == 4
    files[-1].write_bytes(b"x" * files[-1].stat().st_size)  # its footer cannot be read any more
    os.utime(files[-1], (1_700_000_000, 1_700_000_000))
    assert prepare(load_config(job.file), False).shards == prepared.shards


def test_a_limited_run_forgets_no_file_that_it_did_not_reach(tmp_path, checkpoint):
    job, files = over_settled_files(tmp_path, checkpoint)
    prepare(load_config(job.file), False).write_job()
    os.utime(files[0], (1_700_000_001, 1_700_000_001))  # new, and all that a limit of one row reaches
    prepare(load_config(job.file, ["source.limit=1"]), False).write_job()
    assert pq.read_metadata(job.output / "_shards.parquet").num_rows == 5
    assert [path.name for path in job.output.iterdir() if path.name not in ("job.json", "_shards.parquet")] == []


def test_job_json_says_what_the_source_says_of_kept_columns(tmp_path, checkpoint):
    job = Job(tmp_path, checkpoint, source={"keep_columns": ["label"]})
    prepare(load_config(job.file), False).write_job()
    kept = json.loads((job.output / "job.json").read_text())["kept_features"]
    assert kept["source_label"]["_type"] == "ClassLabel" and len(kept["source_label"]["names"]) == 10


def test_a_checkpoint_of_one_head_has_no_two_answers(tmp_path):
    folder = tmp_path / "one head"
    LevitForImageClassification(TINY).save_pretrained(folder)
    LevitImageProcessor(size={"shortest_edge": 73}, crop_size=64).save_pretrained(folder)
    job = Job(tmp_path / "job", folder, predict={"per_head": True})
    with pytest.raises(ConfigError, match="predict.per_head: .* has one head; set predict.per_head=false"):
        _ = prepare(load_config(job.file), False).checkpoint
