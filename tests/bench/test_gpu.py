"""`levit-batch bench` where replicas are on GPUs: the arithmetic, and all of it on a CPU that stands in for one."""

import json

import pytest
import torch

from levit_batch.job.config import ComputeConfig
from levit_batch.job.load import load_config
from pipelines.bench import measure, peak
from pipelines.bench.gpu import Machine
from pipelines.bench.run import bench, words
from pipelines.cluster.sizing import NoRoomError
from tests.support.jobs import Job
from tests.support.pretend_gpu import stand_in

SPENT = {"read": 0.1, "decode": 1.2, "resize": 0.2, "model": 0.01, "write": 0.02}  # milliseconds an image


def test_the_slower_of_replicas_and_decode_tasks_is_what_the_machine_does():
    machine = Machine.of(ComputeConfig(), 16, 1)
    assert machine == Machine(gpus=1, replicas=1, decoders=15)
    assert machine.fed(SPENT) == pytest.approx(50_000) and machine.decoded(SPENT) == pytest.approx(10_000)
    assert machine.rate(SPENT) == pytest.approx(10_000)
    assert machine.rate(SPENT | {"model": 1.0}) == pytest.approx(1000)
    two = Machine.of(ComputeConfig(gpus_per_replica=0.5), 16, 1)
    assert two == Machine(gpus=1, replicas=2, decoders=14) and two.fed(SPENT) == pytest.approx(100_000)  # one GPU for both
    assert Machine.of(ComputeConfig(decode_cpus=4), 16, 2) == Machine(gpus=2, replicas=2, decoders=8)
    with pytest.raises(NoRoomError, match="no node has it"):
        Machine.of(ComputeConfig(), 16, 0)


def test_what_the_gpu_could_be_fed_and_what_would_do():
    machine = Machine(gpus=1, replicas=1, decoders=15)
    held = machine.balance(SPENT, 4.0e12)
    assert held["cpus_per_gpu"] == pytest.approx(75) and held["gpu_share"] == pytest.approx(0.2)
    assert held["smaller_gpu"] == "an L40S"  # a fifth of 4 TB/s
    assert machine.balance(SPENT | {"decode": 7.0}, 4.0e12)["smaller_gpu"] == "an L4"
    assert machine.balance(SPENT, 0.32e12)["smaller_gpu"] is None  # it is a small one
    busy = machine.balance(SPENT | {"model": 5.0}, 4.0e12)
    assert busy["gpu_share"] == 1 and busy["smaller_gpu"] is None and busy["cpus_per_gpu"] < 1


@pytest.fixture
def config(tmp_path, checkpoint, monkeypatch):
    monkeypatch.setattr(peak, "LEAST_SECONDS", 0.01)
    monkeypatch.setattr(measure, "FASTEST_FIRST", ("torch",))
    compute = {"gpus_per_replica": 1, "replicas": "auto", "batch_size": 64}
    return load_config(str(Job(tmp_path, checkpoint, compute=compute, model={"dtype": "float32", "backend": "torch"}).file))


def test_all_of_it(config, monkeypatch):
    stand_in(monkeypatch.setattr)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("os.cpu_count", lambda: 16)
    for name, value in (("GPU_EDGE", 64), ("COPIED", 1 << 10)):
        monkeypatch.setattr(peak, name, value)
    monkeypatch.setattr(measure, "OTHER_GPU_BATCH", 128)
    said = bench(config, images=40)
    spent, held = said["milliseconds"], said["balance"]
    assert said["rows"] == 4 * 64 and said["backend"]["batch"] == 64  # 40 are no batch
    machine = Machine(gpus=1, replicas=1, decoders=15)
    assert said["machine"]["replicas"] == 1 and said["estimate"]["images_per_second"] == pytest.approx(machine.rate(spent))
    assert held["decoders"] == 15 and 0 < held["gpu_share"] <= 1
    assert {m["batch"] for m in said["models"]} == {64, 128} and all(m["images_per_second"] for m in said["models"])
    assert said["limit"]["reached"] <= 1.0001 and json.loads(json.dumps(said)) == said
    (line,) = (line for line in words(said) if line.startswith("balance"))
    assert "decoding would keep one GPU busy; the 15 here use" in line


def test_no_gpu_is_used_where_none_is_wanted(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("glob.glob", lambda pattern: ["/dev/nvidia0"])
    compute = config.compute.model_copy(update={"gpus_per_replica": 0.0})
    said = bench(config.model_copy(update={"compute": compute}), images=40)
    assert said["balance"] is None and said["rows"] == 40
