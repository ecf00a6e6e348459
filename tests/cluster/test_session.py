"""Jobs on a real cluster of three nodes on this machine; nodes are killed."""

import contextlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from ray.cluster_utils import Cluster
from rich.console import Console

from levit_batch.errors import ConfigError, JobError
from levit_batch.job.load import load_config
from pipelines.cluster import session as cluster_module
from pipelines.cluster import supervise
from pipelines.cluster.session import gpu_here
from pipelines.label.run import run_job
from pipelines.screen.progress import Display
from tests.support.clusters import STORE, running
from tests.support.jobs import chunk_files, output_rows, wait_for

ROWS = 899


@pytest.fixture(scope="module")
def three_nodes():
    """A head and two workers, of one CPU each."""
    with running(num_cpus=1) as cluster:
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=STORE)
        yield cluster


def job(cluster: Cluster, output: Path, *overrides: str):
    base = [
        f"compute.address={cluster.address}",
        f"output.path={output}",
        "output.shared=true",
        "compute.chunk_rows=16",
    ]
    return load_config("configs/demo.yaml", [*base, *overrides])


@pytest.fixture(scope="module")
def expected(three_nodes, tmp_path_factory) -> pa.Table:
    """The table of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("expected")
    result = run_job(job(three_nodes, output))
    assert result.exit_code == 0 and result.record["pool"]["replicas"] == [3, 3, 3]
    assert output_rows(output).num_rows == ROWS
    return output_rows(output)


@contextlib.contextmanager
def started(config, said: io.StringIO | None = None):
    """The job under way in a thread (nodes can only be added from the main one); a future of its result."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run_job, config, display=Display(Console(file=said or io.StringIO(), width=400)))


def test_node_that_is_killed_mid_run_costs_no_row(three_nodes, expected, tmp_path):
    victim = sorted(three_nodes.worker_nodes, key=lambda node: node.node_id)[0]
    with started(job(three_nodes, tmp_path, "compute.chunk_rows=8")) as future:
        wait_for(lambda: len(chunk_files(tmp_path)) > 2 or future.done())
        three_nodes.remove_node(victim, allow_graceful=False)
        assert 0 < len(chunk_files(tmp_path)) < 100  # it was in the middle
        three_nodes.add_node(num_cpus=1, object_store_memory=STORE)
        result = future.result()
    assert (result.exit_code, result.record["state"], result.record["rows"]) == (0, "done with errors", ROWS)
    assert output_rows(tmp_path).equals(expected)


def test_all_replicas_lost_goes_on_where_there_is_room(expected, tmp_path, monkeypatch):
    monkeypatch.setattr(supervise, "PATIENCE", 1.0)
    said = io.StringIO()
    with running(num_cpus=0) as cluster:
        worker = cluster.add_node(num_cpus=2, object_store_memory=STORE)
        with started(job(cluster, tmp_path, "compute.decode_cpus=1"), said) as future:
            wait_for(lambda: len(chunk_files(tmp_path)) > 2 or future.done())
            cluster.remove_node(
                worker, allow_graceful=False
            )  # for a smaller one: what ran on the first does not fit on it
            cluster.add_node(num_cpus=1, object_store_memory=STORE)
            result = future.result()
    assert "all replicas were lost" in said.getvalue()
    assert result.record["pool"]["decoders"] == [1, 1, 1]  # of the first try; in the second one CPU did everything
    assert output_rows(tmp_path).equals(expected)


def test_replicas_of_an_accelerator_type_run_where_it_is(expected, tmp_path, monkeypatch):
    """Ray takes the nodes' word for their GPUs: placement is real. The replicas are told that there is none to compute on."""
    monkeypatch.setattr("pipelines.label.run.uses_gpu", lambda compute: False)
    with running(num_cpus=1) as cluster:
        for kind, gpus in (("T4", 2), ("A100", 1)):
            has = {f"accelerator_type:{kind}": 1}
            cluster.add_node(num_cpus=1, num_gpus=gpus, resources=has, object_store_memory=STORE)
        asked = ["compute.accelerator_type=A100", "compute.gpus_per_replica=0.5", "model.dtype=float32"]
        result = run_job(job(cluster, tmp_path, *asked))
    assert result.record["pool"]["replicas"] == [2, 2, 2]
    assert result.record["pool"]["decoders"] == [2, 2, 2]  # on three CPUs in all
    assert output_rows(tmp_path).equals(expected)


def test_request_that_no_node_can_meet_is_one_line(three_nodes, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_module, "NODES_WAIT", 1.0)
    with pytest.raises(
        ConfigError, match="4 replicas of 1 CPU do not fit; the cluster has 3 nodes, 3 CPUs, 0 GPUs: room for 3"
    ):
        run_job(job(three_nodes, tmp_path, "compute.replicas=4"))
    with pytest.raises(ConfigError, match="one replica takes 1 GPU, and no node has it; the cluster has 3 nodes"):
        run_job(job(three_nodes, tmp_path, "compute.gpus_per_replica=1", "model.dtype=float32"))


def test_waits_for_a_node_that_is_about_to_join(expected, tmp_path):
    said = io.StringIO()
    with running(num_cpus=0) as cluster, started(job(cluster, tmp_path), said) as future:
        wait_for(lambda: "waiting for nodes" in said.getvalue() or future.done())
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
        future.result()
    assert output_rows(tmp_path).equals(expected)


@pytest.mark.parametrize(
    ("key", "overrides"),
    [("source.path", []), ("output.path", ["source.type=huggingface", "source.path=someone/something"])],
)
def test_local_path_is_refused_where_other_nodes_do_not_see_it(three_nodes, tmp_path, key, overrides):
    output = tmp_path / "out"
    with pytest.raises(ConfigError, match=rf"{key}: .* is a local path.*output.shared=true"):
        run_job(job(three_nodes, output, *overrides, "output.shared=false"))
    assert not output.exists()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1:1", "compute.address: no Ray cluster answers at 127.0.0.1:1"),
        ("ray://127.0.0.1:10001", "levit-batch submit CONFIG --address"),
        ("http://127.0.0.1:8265", "levit-batch submit CONFIG --address"),
    ],
)
def test_address_that_cannot_work_is_one_line(tmp_path, address, said):
    with pytest.raises(ConfigError, match=said):
        run_job(load_config("configs/demo.yaml", [f"output.path={tmp_path}", f"compute.address={address}"]))


def test_ray_that_does_not_start_is_one_line(tmp_path, monkeypatch):
    def late(**options):
        raise Exception("The current node timed out during startup.")  # Ray's own words and class

    monkeypatch.setattr("ray.init", late)
    with pytest.raises(JobError, match="^Ray could not be started: The current node timed out during startup.; try again"):
        run_job(load_config("configs/demo.yaml", [f"output.path={tmp_path}", "compute.engine=ray"]))


def test_torch_is_asked_for_a_gpu_only_where_there_may_be_one(monkeypatch):
    asked = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: bool(asked.append(1)) or True)
    monkeypatch.setattr("pipelines.cluster.session.sys.platform", "linux")
    monkeypatch.setattr("pipelines.cluster.session.glob.glob", lambda pattern: [])
    assert not gpu_here() and not asked
    monkeypatch.setattr("pipelines.cluster.session.glob.glob", lambda pattern: ["/dev/nvidia0"] if "nvidia" in pattern else [])
    assert gpu_here() and asked
