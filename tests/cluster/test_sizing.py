"""Sizes of pools on clusters of many shapes: what fits is taken whole, what never fits is said in one line."""

import pytest

from levit_batch.errors import ConfigError
from levit_batch.job.config import ComputeConfig
from levit_batch.job.load import load_config
from pipelines.cluster.sizing import Capacity, Nodes, NoRoomError, Size, room, size_for


def cluster(*nodes: dict[str, float], most: list[tuple[dict[str, float], int]] | None = None) -> Capacity:
    return Capacity(tuple(Nodes(n) for n in nodes), most and tuple(Nodes(r, count) for r, count in most))


def size(capacity: Capacity, gpu: bool = False, tasks: int = 1000, measured: float | None = None, **compute) -> Size:
    return size_for(ComputeConfig(address="auto", **compute), gpu, tasks, capacity, measured)


CPU1, CPU4 = {"CPU": 1}, {"CPU": 4}
GPU_NODE = {"CPU": 8, "GPU": 2, "accelerator_type:A100": 1}


@pytest.mark.parametrize(
    ("nodes", "compute", "gpu", "replicas", "decoders"),
    [
        ([CPU1], {}, False, 1, None),
        ([CPU4, CPU4, CPU1], {}, False, 9, None),
        ([{"CPU": 0}, CPU4], {}, False, 4, None),  # a head that takes no work
        ([CPU1], {"decode_cpus": 1}, False, 1, None),  # no room for both: one replica that does everything
        ([{"CPU": 2}], {"decode_cpus": 3}, False, 1, 1),
        ([CPU4], {"decode_cpus": 1}, False, 2, 2),
        ([CPU4, CPU4], {"decode_cpus": 3}, False, 2, 6),
        ([{"CPU": 1, "GPU": 1}], {}, True, 1, 1),
        ([{"CPU": 0, "GPU": 1}], {}, True, 1, None),
        ([GPU_NODE], {}, True, 2, 6),
        ([GPU_NODE, {"CPU": 16}], {}, True, 2, 22),  # CPU nodes decode for the GPUs
        ([GPU_NODE], {"gpus_per_replica": 0.5}, True, 4, 4),
        ([GPU_NODE], {"gpus_per_replica": 0.3}, True, 6, 6),
        ([GPU_NODE, {"CPU": 8, "GPU": 4, "accelerator_type:T4": 1}], {"accelerator_type": "T4"}, True, 4, 12),
        ([GPU_NODE, GPU_NODE], {"decode_cpus": 100}, True, 4, 16),
        ([GPU_NODE, GPU_NODE], {"gpus_per_replica": 0}, False, 16, None),
    ],
)
def test_pool_takes_what_the_cluster_has(nodes, compute, gpu, replicas, decoders):
    found = size(cluster(*nodes), gpu, **compute)
    assert found.replicas == (replicas,) * 3  # all of it, at once
    assert found.decoders == (decoders and (decoders,) * 3)


@pytest.mark.parametrize("nodes", [[CPU1], [CPU1, CPU1], [CPU4], [GPU_NODE], [{"CPU": 1, "GPU": 1}], [CPU1, GPU_NODE]])
@pytest.mark.parametrize(
    "compute", [{}, {"decode_cpus": 1}, {"decode_cpus": 7}, {"replicas": 1}, {"replicas": {"max": 9}}]
)
@pytest.mark.parametrize("tasks", [1, 3, 1000])
def test_replicas_and_decode_tasks_always_fit_together(nodes, compute, tasks):
    capacity = cluster(*nodes)
    found = size(capacity, any("GPU" in n for n in nodes), tasks, **compute)
    placed = found.replicas[1] * found.cpus + (found.decoders[1] if found.decoders else 0)
    assert placed <= room(capacity.now, CPU1)
    assert 1 <= found.replicas[0] <= found.replicas[1] <= min(tasks, room(capacity.now, found.shape))


def test_measured_times_decide_how_many_decode():
    assert size(cluster({"CPU": 64, "GPU": 4}), True).decoders == (60, 60, 60)
    assert size(cluster({"CPU": 64, "GPU": 4}), True, measured=2.5).decoders == (12, 12, 12)
    assert size(cluster({"CPU": 8, "GPU": 4}), True, measured=2.5).decoders == (8, 8, 8)
    assert size(cluster({"CPU": 64, "GPU": 4}), True, measured=2.5, decode_cpus=7).decoders == (28, 28, 28)


def test_range_starts_at_its_most_and_few_tasks_need_few_replicas():
    assert size(cluster(CPU4, CPU4), replicas={"min": 2, "max": 6}).replicas == (2, 6, 6)
    assert size(cluster(CPU4), replicas={"min": 2, "max": 6}).replicas == (2, 4, 4)
    assert size(cluster(CPU4, CPU4), tasks=3).replicas == (3, 3, 3)
    assert size(cluster(CPU4, CPU4), tasks=3, replicas={"min": 5, "max": 6}).replicas == (3, 3, 3)


def test_cluster_that_grows_is_asked_for_what_it_can_become():
    capacity = cluster({"CPU": 0}, most=[({"CPU": 4, "GPU": 1}, 3)])
    assert size(capacity, True).replicas == (1, 3, 3)
    assert size(capacity, True, replicas=3).replicas == (3, 3, 3)
    with pytest.raises(NoRoomError):
        size(capacity, True, replicas=4)
    assert size(cluster(CPU1, most=[(CPU4, 1 << 30)]), tasks=50).replicas == (1, 50, 50)


@pytest.mark.parametrize(
    ("nodes", "compute", "gpu", "said"),
    [
        ([CPU4], {"replicas": 5}, False, r"compute.replicas: 5 replicas of 1 CPU do not fit; .*4 CPUs.*room for 4"),
        ([CPU4], {"replicas": {"min": 5, "max": 9}}, False, "compute.replicas: 5 replicas.*room for 4"),
        ([CPU4], {"replicas": 3, "decode_cpus": 1}, False, "3 replicas of 1 CPU and 1 CPU to decode.*room for 2"),
        (
            [CPU4],
            {"gpus_per_replica": 1},
            True,
            "compute.gpus_per_replica: one replica takes 1 GPU, and no node has it",
        ),
        ([GPU_NODE], {"accelerator_type": "H100"}, True, "accelerator_type: .*of type H100, .*2 GPUs .A100"),
        ([GPU_NODE], {"replicas": 3}, True, "3 replicas of 1 GPU do not fit.*room for 2"),
    ],
)
def test_what_never_fits_is_one_line_with_the_key_the_need_and_the_cluster(nodes, compute, gpu, said):
    with pytest.raises(NoRoomError, match=said) as raised:
        size(cluster(*nodes), gpu, **compute)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("compute", [{}, {"decode_cpus": 1}, {"gpus_per_replica": 1}, {"replicas": {"max": 3}}])
def test_cluster_without_any_room_holds_nothing(compute):
    for capacity in (cluster(), cluster({"CPU": 0})):
        with pytest.raises(NoRoomError, match="the cluster has"):
            size(capacity, "gpus_per_replica" in compute, **compute)


@pytest.mark.parametrize("gpus", ["2", "1.5"])
def test_more_than_the_one_gpu_that_a_replica_uses_is_refused(gpus):
    with pytest.raises(ConfigError, match="gpus_per_replica: .* should be 'auto' or less than or equal to 1"):
        load_config("configs/demo.yaml", [f"compute.gpus_per_replica={gpus}"])
