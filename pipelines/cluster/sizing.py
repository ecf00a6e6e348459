"""How many replicas of what size fit on a cluster. Plain arithmetic over what its nodes have; no Ray in here."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from levit_batch.errors import ConfigError
from levit_batch.job.config import ComputeConfig, ReplicaRange
from levit_batch.results.page.formats import plural

UNLIMITED = 1 << 30
SPARE = 1.2  # decode tasks over what the measured times ask for: a replica that waits costs more than one CPU


class NoRoomError(ConfigError):
    """What is asked for does not fit on the cluster, at the least not yet."""


@dataclass(frozen=True)
class Nodes:
    """`count` nodes that each have `resources` (Ray's names: CPU, GPU, accelerator_type:A100, ...)."""

    resources: dict[str, float]
    count: int = 1

    def room(self, shape: dict[str, float]) -> int:
        """How many of `shape` fit, whole, on these nodes."""
        needed = {name: amount for name, amount in shape.items() if amount}
        if not needed:
            return UNLIMITED
        each = min(math.floor(self.resources.get(name, 0) / amount + 1e-9) for name, amount in needed.items())
        return each * self.count


@dataclass(frozen=True)
class Capacity:
    """What a cluster is made of now, and, where it grows by itself, what it can become."""

    now: tuple[Nodes, ...]
    most: tuple[Nodes, ...] | None = None  # None: it does not grow

    @property
    def grows(self) -> bool:
        return self.most is not None

    @property
    def largest(self) -> tuple[Nodes, ...]:
        return self.now if self.most is None else self.most

    def __str__(self) -> str:
        """For example: 2 nodes, 8 CPUs, 1 GPU (A100)."""
        total = {name: sum(n.resources.get(name, 0) * n.count for n in self.largest) for name in ("CPU", "GPU")}
        kinds = sorted({name.split(":", 1)[1] for n in self.largest for name in n.resources if is_kind(name)})
        nodes = sum(n.count for n in self.largest)
        words = [f"{'up to ' if self.grows else ''}{plural(nodes, 'node')}", plural(total["CPU"], "CPU")]
        words.append(plural(total["GPU"], "GPU") + (f" ({', '.join(kinds)})" if kinds else ""))
        return ", ".join(words)


def is_kind(resource: str) -> bool:
    return resource.startswith("accelerator_type:")


@dataclass(frozen=True)
class Size:
    """replicas: (fewest, most, at the start); gpus and cpus that one takes; decoders: the same of decode tasks' actors,
    of one CPU each, or None where a replica decodes by itself."""

    replicas: tuple[int, int, int]
    gpus: float
    cpus: float
    decoders: tuple[int, int, int] | None
    accelerator_type: str | None = None

    @property
    def shape(self) -> dict[str, float]:
        kind = {f"accelerator_type:{self.accelerator_type}": 0.001} if self.accelerator_type else {}
        return {"CPU": self.cpus, "GPU": self.gpus} | kind


def room(nodes: Iterable[Nodes], shape: dict[str, float]) -> int:
    return min(UNLIMITED, sum(part.room(shape) for part in nodes))


def size_for(compute: ComputeConfig, gpu: bool, tasks: int, capacity: Capacity, measured: float | None = None) -> Size:
    """The largest pool that `compute` asks for and that fits, for `tasks` tasks. Raises NoRoomError when the least does not.

    measured: decode seconds per predict second of earlier runs. A replica on a GPU takes no CPU by name, and a decode
    task one: no order in which Ray places them leaves a replica without room. The replicas' own CPUs are kept free.
    """
    gpus = (1.0 if gpu else 0.0) if compute.gpus_per_replica == "auto" else float(compute.gpus_per_replica)
    apart = gpus > 0 or compute.decode_cpus != "auto"
    size = Size((1, 1, 1), gpus, 0.0 if gpus else 1.0, None, compute.accelerator_type)
    there, cpus = room(capacity.largest, size.shape), room(capacity.largest, {"CPU": 1})
    one = (plural(gpus, "GPU") if gpus else "1 CPU") + (f" of type {size.accelerator_type}" if size.accelerator_type else "")
    if not there:
        plain = room(capacity.largest, {"GPU": gpus, "CPU": size.cpus})
        key = "accelerator_type" if size.accelerator_type and plain else "gpus_per_replica" if gpus else "replicas"
        raise NoRoomError(f"compute.{key}: one replica takes {one}, and no node has it; the cluster has {capacity}")
    if apart and not gpus:  # a replica and its decode tasks share the CPUs
        decode = max(0, min(int(compute.decode_cpus), cpus - 1))
        apart, there = decode > 0, there // (decode + 1)
        one += f" and {plural(compute.decode_cpus, 'CPU')} to decode"
    replicas = replica_range(compute, there, tasks, capacity, one)
    wanted = per_replica(compute, gpus, cpus, there, measured)
    free = cpus - (0 if gpus else replicas[1])
    decoders = tuple(min(n * wanted, max(free, 0)) for n in replicas) if apart else None
    return Size(replicas, gpus, size.cpus, decoders if decoders and all(decoders) else None, size.accelerator_type)


def replica_range(
    compute: ComputeConfig, there: int, tasks: int, capacity: Capacity, one: str
) -> tuple[int, int, int]:
    """(fewest, most, at the start) of replicas that each take `one`. Raises NoRoomError when the fewest do not fit."""
    if isinstance(compute.replicas, ReplicaRange):
        least, most = compute.replicas.min, min(compute.replicas.max, there)
    elif compute.replicas == "auto":
        least, most = 1, there
    else:
        least = most = compute.replicas
    asked = compute.replicas.min if isinstance(compute.replicas, ReplicaRange) else compute.replicas
    least, most = min(least, tasks), min(most, tasks)
    if most > there or least > most or most < 1:
        raise NoRoomError(
            f"compute.replicas: {asked} replicas of {one} do not fit; the cluster has {capacity}: room for {there}"
        )
    # A cluster that stays as it is starts complete and stays so; one that grows begins by asking for all of it.
    return (most if compute.replicas == "auto" and not capacity.grows else least, most, most)


def per_replica(compute: ComputeConfig, gpus: float, cpus: int, there: int, measured: float | None) -> int:
    """Decode tasks for each replica: as asked, as measured before, or all the CPUs that there are."""
    if compute.decode_cpus != "auto":
        return compute.decode_cpus
    if measured:
        return max(1, math.ceil(measured * SPARE))
    return max(1, cpus // max(1, there) - 1)
