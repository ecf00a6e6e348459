import json
from types import SimpleNamespace

import pytest

from levit_batch.job.chunks import Chunk
from levit_batch.job.config import OutputConfig
from levit_batch.table.output import Output, folder_of
from levit_batch.table.plan import Plan
from pipelines.label.record import STATS_BATCH, RunRecord


def stats(rows, **errors):
    scores = [0] * 50
    scores[25] = rows
    return {
        "rows": rows,
        "errors": errors,
        "labels": {"1": rows},
        "scores": scores,
        "score": 0.5 * rows,
        "disagree": None,
        "target": {"unmatched": {"rows": 1, "names": {"cat": 1}}},
        "embedding": [1.0, 2.0],
        "norm": 3.0,
        "divergence": None,
    }


def chunk_record(i, rows=10, **errors):
    return {
        "chunk": f"s rows {i}", "shard": "s", "first": i * rows, "stop": (i + 1) * rows, "run": "now", "scores": [0.5, 0.6],
        "file": f"{folder_of('s')}/{i:09d}-{i:09d}.00000000.parquet", "staged": False, "written": 1000,
        "rows": rows, "errors": errors, "stats": stats(rows, **errors), "bytes": 100, "begun_again": i == 3,
        "seconds": {"read": 0.5, "predict": 1.0}, "waited": 0.25, "node": "n", "pid": i % 2, "peak_memory": 1000 + i,
    }  # fmt: skip


@pytest.fixture
def run(tmp_path):
    prepared = SimpleNamespace(output=Output(OutputConfig(path=str(tmp_path))), revision="abc")
    chunks = [Chunk("s", "", "0" * 8, 0, 10)]
    return RunRecord(prepared, Plan(chunks=5, rows=50, done_rows=10, done=chunks, new=["s"] * 30, vanished=["gone"]))


def test_sums_over_chunks(run):
    for i in range(4):
        run.add(chunk_record(i, **({"decode": 2} if i == 3 else {})))
    said = run.as_json("done")
    assert (said["rows"], said["chunks"], said["errors"], said["error_rate"]) == (40, 4, {"decode": 2}, 0.05)
    assert said["stages"]["predict"] == {"seconds": 4.0, "images_per_second": 10.0}
    assert (
        said["waiting"] == {"read": 2.0, "replica": 1.0}
        and said["unmatched_targets"] == 4
        and said["bytes_read"] == 400
    )
    assert said["begun_again"] == 1, "one chunk that lost its process"
    assert said["replicas"] == 2 and said["peak_memory"] > 1002 + 1003
    assert said["skipped"] == {"chunks": 1, "rows": 10} and said["dataset_revision"] == "abc"
    assert said["shards"]["new"]["count"] == 30 and len(said["shards"]["new"]["names"]) == 20
    assert said["stats"]["labels"] == {"1": 40} and said["stats"]["embedding"] == [4.0, 8.0]


def test_a_long_run_keeps_few_stats(run):
    for i in range(3 * STATS_BATCH):
        run.add(chunk_record(i, rows=1))
    assert len(run._stats) <= STATS_BATCH and run.as_json("done")["stats"]["rows"] == 3 * STATS_BATCH


def test_failures_are_kept_until_they_are_tried_again(run):
    run.add({"chunk": "s rows 0-9", "failed": "OSError: away", "again": True})
    run.add({"chunk": "t", "failed": "Traceback", "again": False})
    assert set(run.failed) == {"s rows 0-9", "t"} and run.again == {"s rows 0-9"}
    run.forget_failures([Chunk("s", "", "0" * 8, 0, 10)])
    assert set(run.failed) == {"t"} and not run.again


@pytest.mark.parametrize(("error", "state"), [(KeyboardInterrupt, "interrupted"), (RuntimeError, "failed")])
def test_a_run_that_ends_early_is_recorded(run, tmp_path, error, state):
    with pytest.raises(error), run.recorded():
        raise error
    (file,) = (tmp_path / "runs").iterdir()
    assert json.loads(file.read_text())["state"] == state


def test_no_secret_is_recorded(run, tmp_path):
    run.add({"chunk": "s", "failed": "OSError: https://h/x?X-Amz-Signature=abc", "again": True})
    run.write("failed")
    assert "abc" not in next((tmp_path / "runs").iterdir()).read_text().replace('"abc"', "")
