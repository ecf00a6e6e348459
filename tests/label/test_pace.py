"""How many decode tasks a GPU replica gets on a cluster, from what earlier runs measured."""

import pytest

from levit_batch.job.config import OutputConfig
from levit_batch.table.output import Output
from pipelines.label.pace import CHUNKS, Pace, measured_decode


@pytest.fixture
def output(tmp_path):
    return Output(OutputConfig(path=str(tmp_path)))


def record(output: Output, name: str, gpus: float, ratio: float | None, **more) -> None:
    output.write_json(f"runs/{name}.json", {"decode_per_predict": ratio, "pool": {"gpus": gpus}} | more)


def test_newest_run_on_the_same_kind_of_hardware_counts(output):
    assert measured_decode(output, gpu=True) is None
    record(output, "20261101T020000.000Z", 1, 10)
    record(output, "20261102T020000.000Z", 0.5, 3)
    record(output, "20261103T020000.000Z", 0, 0.25)
    assert (measured_decode(output, gpu=True), measured_decode(output, gpu=False)) == (3, 0.25)


def test_runs_that_measured_nothing_are_passed_over(output):
    record(output, "20261101T020000.000Z", 1, 10)
    record(output, "20261102T020000.000Z", 1, None)
    record(output, "20261103T020000.000Z", 1, 1, pool=None)
    output.write_json("runs/20261104T020000.000Z.json", {"state": "nothing new", "pool": None})
    assert measured_decode(output, gpu=True) == 10


def chunk(decode: float, predict: float, cold: bool = False, **seconds: float) -> dict:
    return {"seconds": {"decode": decode, "predict": predict} | seconds, "cold": cold}


def test_what_a_process_pays_for_its_start_is_no_pace():
    pace = Pace()
    pace.add({"seconds": {"read": 1.0}})  # no image was good
    pace.add(chunk(9.0, 28.0, cold=True))
    assert pace.median is None
    for _ in range(3):
        pace.add(chunk(9.0, 1.0, load=30.0))
    pace.add(chunk(40.0, 1.0))  # a file of large images
    assert pace.median == 9.0


def test_a_long_run_keeps_few_of_them():
    pace = Pace()
    for i in range(3 * CHUNKS):
        pace.add(chunk(1.0 + i, 1.0))
    assert len(pace.ratios) == CHUNKS and pace.median > 2 * CHUNKS
