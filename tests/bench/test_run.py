"""`levit-batch bench`: what it measures belongs together, and what it estimates follows from it."""

import json
import math

import pytest

from levit_batch.job.load import load_config
from levit_batch.results.page.formats import plural
from pipelines.bench import measure, peak
from pipelines.bench.run import _model, bench, disturbed, estimate, plan_words, words
from pipelines.label.prepare import prepare
from tests.support.jobs import Job
from tests.support.shards import pictures, write_tars


@pytest.fixture(scope="module")
def job(tmp_path_factory, checkpoint):
    made = Job(tmp_path_factory.mktemp("bench"), checkpoint, model={"backend": "torch"})
    return made, load_config(str(made.file))


@pytest.fixture(scope="module")
def said(job):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "FASTEST_FIRST", ("torch",))  # the others have to be exported first
        patch.setattr(peak, "LEAST_SECONDS", 0.02)
        return bench(job[1], images=40, hours=0.001, price=2.0)


def test_every_stage_is_measured(said, job):
    spent = said["milliseconds"]
    assert said["rows"] == 40 and set(spent) == {"read", "decode", "resize", "model", "write", "whole"}
    assert all(spent[stage] > 0 for stage in ("read", "decode", "model", "write"))
    assert spent["whole"] > spent["model"] + spent["read"]
    assert said["bottleneck"] == max(set(spent) - {"whole"}, key=spent.get)
    assert said["limit"]["reached"] > 0 and said["limit"]["model_share_of_peak"] > 0
    assert json.loads(json.dumps(said)) == said


def test_every_way_to_run_the_model(said):
    found = {(m["backend"], m["dtype"], m["batch"]): m["images_per_second"] for m in said["models"]}
    assert set(found) == {("torch", dtype, batch) for dtype in ("float32", "bfloat16") for batch in (8, 32)}
    assert all(rate > 0 for rate in found.values())


def test_hashes_cost_what_they_cost(tmp_path, checkpoint, monkeypatch):
    made, hashed = Job(tmp_path, checkpoint, model={"backend": "torch"}, predict={"hash": True}), []
    monkeypatch.setattr(measure, "perceptual_hash", lambda pixels: hashed.append(pixels.shape))
    prepared = prepare(load_config(str(made.file)), False)
    measure.stages(prepared, measure.take_sample(prepared, 8))
    assert hashed and set(hashed) == {(32, 32, 3)}


def test_it_leaves_no_trace(said, job):
    assert not job[0].output.exists()


def test_what_the_plan_takes(job):
    prepared = prepare(job[1], False)
    rows = prepared.plan().rows
    plan = estimate(prepared, rate=2.0, replicas=3, here=2, hours=None, price=None)
    assert plan["pending"] == rows and plan["seconds"] == pytest.approx(rows / 6) and plan["cost"] is None
    plan = estimate(prepared, rate=2.0, replicas=3, here=2, hours=rows / 7200 / 4, price=1.5)
    assert plan["replicas_for_hours"] == 4
    assert plan["cost"] == pytest.approx(rows / 6 / 3600 * 2 * 1.5)  # three replicas need two such machines


def test_done_rows_are_not_estimated_again(tmp_path, checkpoint):
    from levit_batch.job.load import load_config

    made = Job(tmp_path / "done", checkpoint)
    config = load_config(str(made.file))
    prepared = prepare(config, False)
    done = next(iter(prepared.chunks))
    at = prepared.output.chunk_place(done)
    at.write_bytes(b"any content: the name says that it is done")
    plan = estimate(prepare(config, False), 1.0, 1, 1, None, None)
    assert plan["rows"] - plan["pending"] == done.rows > 0


def test_the_conclusions_in_words(said):
    text = "\n".join(words(said))
    for word in ("bottleneck", "limit", "estimate", "replicas", "cost"):
        assert word in text
    assert f"{plural(said['estimate']['replicas_for_hours'], 'replica')} for 0.001 h" in text
    plan = said["estimate"]
    hours = plan["pending"] * said["milliseconds"]["whole"] / 1000 / 3600
    assert plan["replicas_for_hours"] == max(1, math.ceil(hours / 0.001))


def test_wrong_results_are_shown_as_such(said):
    assert _model({"images_per_second": None, "error": "logit error 2"}) == "wrong results"


def test_figures_that_cannot_be_are_not_told(said):
    spent, limit = {"read": 0.1, "decode": 0.2, "resize": 0.3, "model": 0.4, "write": 0.1, "whole": 1.1}, said["limit"]
    limit = limit | {"reached": 0.9, "model_share_of_peak": 0.8}
    assert not disturbed(spent, limit, False)
    assert disturbed(spent | {"resize": 1.23, "whole": 1.03}, limit, False) and disturbed(spent, limit | {"reached": 1.57}, False)
    assert not disturbed(spent | {"resize": 1.23, "whole": 1.03}, limit, True), "decode tasks run beside the GPU"
    text = "\n".join(words(said | {"disturbed": True, "limit": limit | {"reached": 1.57}}))
    assert "do not rely on them" in text and "157%" not in text
    assert "the job at 90% of the limit" in "\n".join(words(said | {"disturbed": False, "limit": limit}))


def test_nothing_pending_takes_no_replica_and_costs_nothing(tmp_path, checkpoint):
    made = Job(tmp_path, checkpoint)
    config = load_config(str(made.file))
    prepared = prepare(config, False)
    for chunk in prepared.chunks:
        prepared.output.chunk_place(chunk).write_bytes(b"the name says that it is done")
    plan = estimate(prepare(config, False), 1.0, 1, 1, hours=1.0, price=1.0)
    assert plan["pending"] == 0 and plan["replicas_for_hours"] is None
    assert plan_words(plan) == [f"estimate    nothing is pending: {plural(plan['rows'], 'row')} done"]


def test_rows_that_only_reading_counts_are_not_taken_for_none(tmp_path, checkpoint):
    write_tars(tmp_path / "tars", pictures(6), shards=2)
    source = {"type": "webdataset", "path": str(tmp_path / "tars"), "target_column": "cls"}
    config = load_config(str(Job(tmp_path, checkpoint, source=source).file))
    plan = estimate(prepare(config, False), 10.0, 2, 2, hours=1.0, price=1.0)
    assert (plan["pending"], plan["uncounted_shards"], plan["seconds"], plan["cost"]) == (None, 2, None, None)
    (line,) = plan_words(plan)
    assert line.startswith("estimate    rows unknown, 2 shards pending") and "(20 images/s)" in line
    limited = estimate(prepare(config.model_copy(update={"source": config.source.model_copy(update={"limit": 2})}), False),
                       10.0, 2, 2, None, None)  # fmt: skip
    assert limited["pending"] == 2 and limited["seconds"] == pytest.approx(0.1)
