"""A machine whose replicas are on GPUs: what bounds it, and what else would do."""

import math
from dataclasses import dataclass
from typing import Any

from levit_batch.job.config import ComputeConfig
from levit_batch.results.page.formats import plural
from pipelines.cluster.sizing import UNLIMITED, Capacity, Nodes, size_for

# Bytes a second of GPUs' memories, the slowest first, from NVIDIA's data sheets.
SPEEDS = {"an L4": 0.30e12, "a T4": 0.32e12, "an A10": 0.60e12, "an L40S": 0.86e12, "an A100": 1.55e12, "an H100": 3.35e12}


@dataclass(frozen=True)
class Machine:
    """gpus; replicas on them; decoders: decode tasks beside them, of one CPU each. spent: milliseconds an image of each stage."""

    gpus: int
    replicas: int
    decoders: int

    @classmethod
    def of(cls, compute: ComputeConfig, cpus: int, gpus: int) -> "Machine":
        """What a long run has on this machine alone. Raises NoRoomError."""
        pool = size_for(compute, True, UNLIMITED, Capacity((Nodes({"CPU": cpus, "GPU": gpus}),)))
        # A replica without decode tasks decodes by itself.
        return cls(gpus, pool.replicas[1], (pool.decoders or pool.replicas)[1])

    def fed(self, spent: dict[str, float]) -> float:
        """Images a second of the replicas, were all pixels in memory; each computes one chunk while it writes another."""
        return 1000 * min(self.gpus / spent["model"], self.replicas / spent["write"])

    def decoded(self, spent: dict[str, float]) -> float:
        """Images a second of the decode tasks."""
        return 1000 * self.decoders / before_model(spent)

    def rate(self, spent: dict[str, float]) -> float:
        """Images a second of the machine: of whatever is slower."""
        return min(self.fed(spent), self.decoded(spent))

    def balance(self, spent: dict[str, float], speed: float) -> dict[str, Any]:
        """CPUs that would have to decode to keep the GPUs busy, what share of their speed is used, and which GPU that would take.

        speed: bytes a second of the GPU's memory, which is what bounds a LeViT.
        """
        share = self.rate(spent) / self.fed(spent)
        return {
            "cpus_per_gpu": self.fed(spent) * before_model(spent) / 1000 / self.gpus,
            "decoders": self.decoders,
            "gpu_share": share,
            "smaller_gpu": next((name for name, its in SPEEDS.items() if share * speed <= its < speed / 1.5), None),
        }


def before_model(spent: dict[str, float]) -> float:
    return spent["read"] + spent["decode"] + spent["resize"]


def balance_words(held: dict[str, Any]) -> str:
    cpus = plural(math.ceil(held["cpus_per_gpu"]), "CPU")
    smaller = f"; going by its memory's speed, {held['smaller_gpu']} would do" if held["smaller_gpu"] else ""
    return f"{cpus} decoding would keep one GPU busy; the {held['decoders']} here use {held['gpu_share']:.0%} of it{smaller}"
