"""A model on its way from the driver, where it is folded and exported, to the replicas, where it runs."""

import copy
import socket
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from levit_batch.errors import ConfigError, JobError, brief
from levit_batch.inference.backends.choose import Backend, Exported, Runtime, backend_module, choose
from levit_batch.inference.cache import exported
from levit_batch.inference.check import CheckedBackend
from levit_batch.job.config import ModelConfig


@dataclass(frozen=True)
class Runnable:
    """name: the backend; exported: what it runs, None where that is the folded model; folded: also the reference.

    Pickled, its weights are arrays: those Ray's workers map from shared memory, where each would copy torch's tensors.
    What comes out is read-only.
    """

    name: str
    runtime: Runtime
    exported: Exported | None
    folded: nn.Module

    def __getstate__(self) -> dict[str, Any]:
        weights = {name: _in_memory_order(tensor).numpy() for name, tensor in self.folded.state_dict().items()}
        return self.__dict__ | {"folded": (copy.deepcopy(self.folded).to("meta"), weights)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        folded, weights = state["folded"]
        with warnings.catch_warnings(action="ignore"):  # that nobody may write there, and nobody does
            tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
        hollow = folded.state_dict()
        shaped = {name: flat.as_strided(hollow[name].shape, hollow[name].stride()) for name, flat in tensors.items()}
        folded.load_state_dict(shaped, assign=True)
        self.__dict__.update(state | {"folded": folded})

    def load(self) -> Backend:
        """The backend on this machine. Its first answer is checked, where its arithmetic is not the reference's.

        Raises ConfigError where it cannot be compiled, or the GPU does not work: no other chunk would fare better.
        """
        runtime = self.runtime
        try:
            backend = backend_module(self.name).load(self.exported, self.folded, runtime)
        except Exception as e:
            if isinstance(e, JobError) or not (runtime.gpu or runtime.compile):
                raise
            key, without = ("model.compile", "false") if runtime.compile else ("compute.gpus_per_replica", "0")
            failed = f"{type(e).__name__} on {socket.gethostname()}: {brief(e)}"
            raise ConfigError(f"{key}: the model does not run: {failed}; mend that, or set {key}={without}") from e
        plain = self.name == "torch" and runtime.dtype == "float32" and not (runtime.gpu or runtime.compile)
        return backend if plain else CheckedBackend(backend, self.folded, self.name, runtime.dtype)


def make_runnable(folded: nn.Module, model: ModelConfig, runtime: Runtime) -> Runnable:
    """Choose the backend and export the folded model for it. Raises ConfigError when it cannot run here."""
    name = choose(model, runtime)
    return Runnable(name, runtime, exported(name, folded, runtime), folded)


def _in_memory_order(tensor: torch.Tensor) -> torch.Tensor:
    """All numbers of a dense tensor as they lie in memory, whatever the order of its axes: a view [N]."""
    return tensor.as_strided((tensor.numel(),), (1,))
