"""Ray: started here or joined; what it is made of; and whether what a job needs is there."""

import contextlib
import glob
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from levit_batch.errors import ConfigError, JobError, brief
from levit_batch.job.config import ComputeConfig, JobConfig
from levit_batch.storage.url import scheme
from pipelines.cluster.local import deaf, end_at_once, own_folder, sigterm_kept, silently
from pipelines.cluster.services import shut_down, watched
from pipelines.cluster.sizing import Capacity, Nodes, NoRoomError, Size, size_for
from pipelines.interrupt import deferred

# Descriptors, records and one copy of the weights: a replica's pixels stay in its own memory.
OBJECT_STORE_BYTES = 400_000_000
# Of a whole machine Ray keeps 5% free: it would end replicas, and what Ray Data needs to live, for what other programs take. The
# kernel ends replicas first, and when there is no memory any more.
NO_MONITOR = ("RAY_memory_monitor_refresh_ms", "0")
NO_HANDLER = ("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")  # with it SIGTERM while Ray starts ends this process at once
NODES_WAIT = 45.0  # seconds for nodes that are about to join: a KubeRay head is ready before its workers
CONNECT_SECONDS = 20.0
NODE_GROUPS = "LEVIT_BATCH_NODE_GROUPS"
GPU_DEVICES = ("nvidia", "nvhost", "nvgpu", "kfd", "dxg")  # NVIDIA's, Jetson's, AMD's, and Windows' below Linux
INSIDE_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"  # set by Ray for what was submitted: the package came along with it


@contextlib.contextmanager
def ray_session(compute: ComputeConfig, verbose: bool) -> Iterator[None]:
    """Ray started here, or the cluster at `compute.address`, for as long as the context lasts."""
    import ray

    local = compute.address is None
    check_address(compute.address)
    os.environ.setdefault(*NO_HANDLER)
    if local:
        os.environ.setdefault(*NO_MONITOR)
    options = {"include_dashboard": False} if local else _bring_package()
    if local and compute.decode_cpus == "auto" and not uses_gpu(compute):
        options["object_store_memory"] = OBJECT_STORE_BYTES  # pixels travel through it only when decoding is apart
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))  # Ray tells of deaths there, where --json goes
        try:
            with (
                contextlib.nullcontext() if verbose else silently(local),
                deaf() if local else contextlib.nullcontext(),
                sigterm_kept(),
                deferred(),  # a signal meanwhile ends the job when it is known what is to be undone
            ):
                started = ray.init(
                    address=compute.address or "local",
                    log_to_driver=verbose,
                    logging_level=logging.INFO if verbose else logging.ERROR,
                    configure_logging=True,
                    **options,
                )
                if local:
                    end_at_once()
                if local and not verbose:  # its logs are what somebody may look for who wants to hear what Ray says
                    stack.enter_context(own_folder(Path(started.address_info["session_dir"])))
                stack.callback(deferred()(shut_down))
        except (ConnectionError, TimeoutError) as e:
            raise ConfigError(f"compute.address: no Ray cluster answers at {compute.address}: {e}") from None
        except Exception as e:  # Ray raises nothing more telling, for one when a busy machine takes more than 30 s
            raise JobError(f"Ray could not be started: {brief(e)}; try again, or see what it says: --verbose") from e
        with watched(local):
            yield


class Session(contextlib.ExitStack):
    """Ray, from when it is first needed to the end of the context: started here, or the cluster at `compute.address`."""

    def __init__(self, compute: ComputeConfig, verbose: bool):
        super().__init__()
        self.compute, self.verbose, self.opened = compute, verbose, False

    def open(self) -> None:
        """Start or join Ray, unless that is done."""
        if not self.opened:
            self.enter_context(ray_session(self.compute, self.verbose))
            self.opened = True

    def join(self) -> None:
        """A cluster is joined at once: it says whether there are GPUs, and who sees which disk."""
        if self.compute.address is not None:
            self.open()


def check_address(address: str | None) -> None:
    """Raises ConfigError for an address that cannot work: not a cluster's own, or nothing listens there (Ray itself would go
    on asking for minutes)."""
    if "://" in (address or ""):
        raise ConfigError(
            f"compute.address: {address}: Ray Data runs in a driver on a node of the cluster; say auto or HOST:PORT there, or "
            "send the job from elsewhere: levit-batch submit CONFIG --address http://HEAD:8265"
        )
    host, _, port = (address or "").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as e:
        raise ConfigError(f"compute.address: no Ray cluster answers at {address}: {e}") from None


def _bring_package() -> dict:
    """The nodes of a cluster get this version of the package from here, unless they have it with the submitted job."""
    if INSIDE_JOB in os.environ:
        return {}
    return {"runtime_env": {"py_modules": package_folders(), "excludes": ["**/__pycache__"]}}


def package_folders() -> list[str]:
    """This package as folders that Ray can ship."""
    import levit_batch
    import pipelines

    return [str(Path(package.__file__).parent) for package in (levit_batch, pipelines)]


def uses_gpu(compute: ComputeConfig) -> bool:
    """Whether replicas run on GPUs: of this machine, or of the cluster that was joined."""
    if compute.gpus_per_replica != "auto":
        return compute.gpus_per_replica > 0
    if compute.address is None:
        return gpu_here()
    return any(nodes.resources.get("GPU", 0) and nodes.count for nodes in capacity().largest)


def gpu_here() -> bool:
    """Whether torch finds a GPU. Where the system has no device of that kind, torch (a second to import) is not asked."""
    if sys.platform == "linux" and not any(glob.glob(f"/dev/{name}*") for name in GPU_DEVICES):
        return False
    import torch

    return torch.cuda.is_available()


def capacity() -> Capacity:
    """What the Ray that this process joined is made of, and what its autoscaler, if it has one, may add."""
    import ray

    now = tuple(Nodes(node["Resources"]) for node in ray.nodes() if node["Alive"])
    groups = _groups()
    return Capacity(now, groups and tuple(Nodes(resources, count) for resources, count in groups))


def _groups() -> list[tuple[dict[str, float], int]] | None:
    """Groups of nodes that an autoscaler may start: what a node has, and how many of them; None without an autoscaler.

    Open-source Ray does not tell a driver of its autoscaler, so `NODE_GROUPS` does; `levit-batch manifest` sets it.
    """
    groups = os.environ.get(NODE_GROUPS)
    if not groups:
        return None
    try:
        return [
            ({name: float(n) for name, n in resources.items()}, int(count)) for resources, count in json.loads(groups)
        ]
    except (ValueError, TypeError, AttributeError) as e:
        raise ConfigError(f'{NODE_GROUPS}: {groups!r} is not like [[{{"CPU": 8, "GPU": 1}}, 4]]: {e}') from None


def size_of(
    compute: ComputeConfig,
    gpu: bool,
    tasks: int,
    measured: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Size:
    """How many replicas of what size, for `tasks` tasks. Raises NoRoomError when the cluster can never hold them.

    A cluster gets `NODES_WAIT` seconds to become large enough; this machine none.
    """
    deadline = time.monotonic() + (NODES_WAIT if compute.address else 0)
    waiting = False
    while True:
        try:
            return size_for(compute, gpu, tasks, capacity(), measured)
        except NoRoomError as e:
            if time.monotonic() >= deadline:
                raise
            if not waiting:
                say(f"waiting for nodes: {e}")
        waiting = True
        time.sleep(1)


def check_paths(config: JobConfig) -> None:
    """Raises ConfigError for a local path on a cluster where not every process sees this machine's disk."""
    if config.output.shared or not config.compute.address:
        return
    here = capacity()
    if sum(nodes.count for nodes in here.now) < 2 and not here.grows:
        return
    for key, path in local_paths(config):
        raise ConfigError(
            f"{key}: {path} is a local path, which the other nodes of the cluster at {config.compute.address} do not see; use "
            "an object store or hf://, or say output.shared=true when it is mounted at the same place on every node"
        )


def local_paths(config: JobConfig) -> Iterator[tuple[str, str]]:
    """Keys and values of the configuration that name folders or files which the replicas open."""
    source = config.source
    paths = [source.path] if isinstance(source.path, str) else source.path
    if source.type != "huggingface":
        yield from (("source.path", path) for path in paths if scheme(path) in ("", "file"))
    if source.root and scheme(source.root) in ("", "file"):
        yield "source.root", source.root
    if scheme(config.output.path) in ("", "file"):
        yield "output.path", config.output.path
