"""How many decode tasks a GPU replica gets, from what earlier runs measured."""

from levit_batch.job.config import OutputConfig
from levit_batch.table.output import Output
from pipelines.label.record import measured_decode


def record(output: Output, name: str, gpus: float, decode: float, predict: float, **more) -> None:
    stages = {stage: {"seconds": seconds} for stage, seconds in (("decode", decode), ("predict", predict))}
    output.write_json(f"runs/{name}.json", {"stages": stages, "pool": {"gpus": gpus}} | more)


def test_newest_run_on_the_same_kind_of_hardware_counts(tmp_path):
    output = Output(OutputConfig(path=str(tmp_path)))
    assert measured_decode(output, gpu=True) is None
    record(output, "20261101T020000.000Z", gpus=1, decode=100, predict=10)
    record(output, "20261102T020000.000Z", gpus=0.5, decode=60, predict=20)
    record(output, "20261103T020000.000Z", gpus=0, decode=1, predict=4)
    assert (measured_decode(output, gpu=True), measured_decode(output, gpu=False)) == (3, 0.25)


def test_runs_that_measured_nothing_are_passed_over(tmp_path):
    output = Output(OutputConfig(path=str(tmp_path)))
    record(output, "20261101T020000.000Z", gpus=1, decode=100, predict=10)
    record(output, "20261102T020000.000Z", gpus=1, decode=0, predict=0)
    record(output, "20261103T020000.000Z", gpus=1, decode=5, predict=5, pool=None)
    output.write_json("runs/20261104T020000.000Z.json", {"state": "nothing new", "stages": {}, "pool": None})
    assert measured_decode(output, gpu=True) == 10
