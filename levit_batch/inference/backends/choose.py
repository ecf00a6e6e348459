"""What runs the model: one module for each `model.backend`, chosen here.

Each module has `PACKAGES` and the `EXTRA` that installs them, `refuses(runtime)` (why it cannot, or None),
`export(folded, runtime)` on the driver (named bytes) and `load(exported, folded, runtime)` in the replica, which gives a
`Backend`. torch, where the folded model itself is what runs, has no extra, refuses nothing and exports nothing.
"""

import importlib
import importlib.util
from dataclasses import dataclass
from types import ModuleType
from typing import Protocol

import numpy as np

from levit_batch.errors import ConfigError
from levit_batch.job.config import ModelConfig

Exported = dict[str, np.ndarray]  # uint8 [bytes] each, by file name: travels through shared memory

CPU_BATCH, GPU_BATCH = 8, 256  # on a CPU eight images' activations stay in its cache
FASTEST_FIRST = ("openvino", "onnxruntime", "torch")


class Backend(Protocol):
    """A model that runs: uint8 [N,H,W,3] -> embedding float32 [N,D], logits float32 [N,K], for any N > 0.

    batch: images in one forward pass; a last one of fewer takes as long.
    """

    batch: int

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


@dataclass(frozen=True)
class Runtime:
    """What a backend is to run on, and how. batch: images in one forward pass; compile: torch.compile."""

    gpu: bool
    dtype: str
    batch: int
    compile: bool


def make_runtime(model: ModelConfig, gpu: bool, dtype: str, batch: int | str) -> Runtime:
    """`compute.batch_size` with `auto` resolved for the device."""
    size = batch if batch != "auto" else GPU_BATCH if gpu else CPU_BATCH
    return Runtime(gpu, dtype, int(size), model.compile)


def choose(model: ModelConfig, runtime: Runtime) -> str:
    """The name of the backend that `model.backend` asks for. Raises ConfigError for one that cannot run.

    `auto` is the fastest that is installed and computes in `runtime.dtype` on the device: it never trades accuracy.
    """
    if model.backend != "auto":
        reason = why_not(model.backend, runtime)
        if reason:
            raise ConfigError(f"model.backend: {model.backend} {reason}")
        return model.backend
    return next(name for name in FASTEST_FIRST if why_not(name, runtime) is None)


def why_not(name: str, runtime: Runtime) -> str | None:
    module = backend_module(name)
    if missing := [package for package in module.PACKAGES if importlib.util.find_spec(package) is None]:
        return f"lacks {', '.join(missing)}: pip install 'levit-batch[{module.EXTRA}]'"
    return module.refuses(runtime) if module.EXTRA else None


def backend_module(name: str) -> ModuleType:
    return importlib.import_module(f"levit_batch.inference.backends.{name}_backend")


def only_torch(runtime: Runtime) -> str | None:
    """Why a backend that runs graphs on CPUs cannot do what `runtime` wants."""
    if runtime.gpu:
        return "runs on CPUs here: set compute.gpus_per_replica=0, or model.backend=torch"
    if runtime.compile:
        return "does not take model.compile=true, which is torch's: set model.backend=torch"
    return None
