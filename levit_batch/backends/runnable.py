"""A model on its way from the driver, where it is folded and exported, to the replicas, where it runs."""

from dataclasses import dataclass

from torch import nn

from levit_batch.backends import Backend, Exported, Target, backend_module, choose
from levit_batch.backends.cache import exported
from levit_batch.backends.check import CheckedBackend
from levit_batch.config import ModelConfig


@dataclass(frozen=True)
class Runnable:
    """name: the backend; exported: what it runs, None where that is the folded model; folded: also the reference."""

    name: str
    target: Target
    exported: Exported | None
    folded: nn.Module

    def load(self) -> Backend:
        """The backend on this machine. Its first answer is checked, where its arithmetic is not the reference's."""
        backend = backend_module(self.name).load(self.exported, self.folded, self.target)
        plain = self.name == "torch" and self.target.dtype == "float32" and not (self.target.gpu or self.target.compile)
        return backend if plain else CheckedBackend(backend, self.folded, self.name, self.target.dtype)


def make_runnable(folded: nn.Module, model: ModelConfig, target: Target) -> Runnable:
    """Choose the backend and export the folded model for it. Raises ConfigError when it cannot run here."""
    name = choose(model, target)
    return Runnable(name, target, exported(name, folded, target), folded)
