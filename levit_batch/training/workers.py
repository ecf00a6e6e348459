"""One worker among several, or alone: the few things that workers tell each other, through torch.distributed."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed


@dataclass(frozen=True)
class Workers:
    """Which worker this is. Every method is called by all workers at the same point; alone, nothing is sent."""

    rank: int = 0
    count: int = 1

    @classmethod
    def current(cls) -> "Workers":
        if distributed.is_available() and distributed.is_initialized():
            return cls(distributed.get_rank(), distributed.get_world_size())
        return cls()

    @property
    def first(self) -> bool:
        return self.rank == 0

    def all(self, value: bool) -> bool:
        """Whether `value` is true in every worker."""
        return self.total([0.0 if value else 1.0])[0] == 0

    def total(self, values: list[float]) -> list[float]:
        """Sums over the workers, value by value."""
        if self.count == 1:
            return list(values)
        return self.sum(torch.tensor(values, dtype=torch.float64)).tolist()

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the workers of a tensor of the same shape in each; NCCL takes GPU tensors only."""
        if self.count == 1:
            return values
        sent = values.cuda() if distributed.get_backend() == "nccl" else values.clone()
        distributed.all_reduce(sent)
        return sent.to(values.device)

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, in order of rank."""
        if self.count == 1:
            return [value]
        values = [None] * self.count
        distributed.all_gather_object(values, value)
        return values
