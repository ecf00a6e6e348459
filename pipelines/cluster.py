"""Ray: started here or joined, and how much of it a job takes."""

import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass

from levit_batch.config import ComputeConfig, ReplicaRange
from levit_batch.errors import ConfigError, JobError

OBJECT_STORE_BYTES = (
    400_000_000  # descriptors, records and one copy of the weights: a replica's pixels stay in its own memory
)
QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TQDM": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # its C++ side warns about how Ray Data itself uses it
}


@dataclass(frozen=True)
class Size:
    """replicas: (fewest, most); gpus and cpus that one replica takes; decode_cpus: decode tasks a replica, 0 when fused."""

    replicas: tuple[int, int]
    gpus: float
    cpus: float
    decode_cpus: int


def uses_gpu(compute: ComputeConfig) -> bool:
    """Whether replicas run on GPUs, before Ray is started."""
    if compute.gpus_per_replica != "auto":
        return compute.gpus_per_replica > 0
    if compute.address is None:
        import torch

        return torch.cuda.is_available()
    import ray

    return ray.cluster_resources().get("GPU", 0) > 0


@contextlib.contextmanager
def ray_session(compute: ComputeConfig, verbose: bool) -> Iterator[None]:
    """Ray started here, or the cluster at `compute.address`, for as long as the context lasts."""
    import ray

    _quiet(verbose)
    local = compute.address is None
    options = {"include_dashboard": False} if local else {}
    if local and compute.decode_cpus == "auto" and not uses_gpu(compute):
        options["object_store_memory"] = OBJECT_STORE_BYTES  # pixels travel through it only when decoding is apart
    try:
        ray.init(
            address=compute.address or "local",
            log_to_driver=verbose,
            logging_level=logging.INFO if verbose else logging.ERROR,
            configure_logging=True,
            **options,
        )
    except (ConnectionError, TimeoutError) as e:
        raise ConfigError(f"compute.address: no Ray cluster answers at {compute.address}: {e}") from None
    except (RuntimeError, OSError) as e:
        raise JobError(f"Ray could not be started: {e}") from e
    try:
        yield
    finally:
        ray.shutdown()


def _quiet(verbose: bool) -> None:
    if verbose:
        return
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    for name in ("ray", "ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.ERROR)


def size_of(compute: ComputeConfig, gpu: bool, tasks: int) -> Size:
    """How many replicas of what size, on the cluster as it is, for `tasks` tasks. Raises ConfigError."""
    import ray

    total = ray.cluster_resources()
    gpus = (1.0 if gpu else 0.0) if compute.gpus_per_replica == "auto" else float(compute.gpus_per_replica)
    separate = gpus > 0 or compute.decode_cpus != "auto"
    cpus = 1.0
    decode = 0 if not separate else compute.decode_cpus if compute.decode_cpus != "auto" else _decode_cpus(total, gpus)
    room = int(total.get("GPU", 0) / gpus) if gpus else int(total.get("CPU", 1) / (cpus + decode))
    if isinstance(compute.replicas, ReplicaRange):
        least, most = compute.replicas.min, compute.replicas.max
    else:
        most = max(1, room) if compute.replicas == "auto" else compute.replicas
        least = most
    most = max(1, min(most, tasks))
    return Size((min(least, most), most), gpus, cpus, decode)


def _decode_cpus(total: dict[str, float], gpus: float) -> int:
    """CPUs for decoding that each GPU replica finds: all but its own."""
    replicas = max(1, int(total.get("GPU", 1) / gpus))
    return max(1, int(total.get("CPU", 2) / replicas) - 1)
