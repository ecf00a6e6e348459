"""A linear layer that takes oneDNN's float32 kernel on x86 instead of MKL's.

torch sends float32 `linear` to MKL, which on AMD processors does not use AVX-512: 48 GMAC/s on one core of an EPYC where oneDNN,
which ships in the same torch, does 106 (x [8, 196, 256], 512 outputs, torch 2.13). On Intel the two are alike.
"""

import platform
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional


class FastLinear(nn.Linear):
    """`nn.Linear` for inference (not differentiable on the fast path), optionally followed by hard-swish.

    The parameters are plain ones, so loading, moving and pickling need no care. Anything but float32 on a CPU, and every
    traced or compiled graph, takes torch's ordinary operators.
    """

    def __init__(
        self, in_features: int, out_features: int, activation: str = "none", device: torch.device | None = None
    ):
        super().__init__(in_features, out_features, device=device)
        self.activation = activation

    def forward(self, features: Tensor) -> Tensor:
        if _traced() or not (features.device.type == "cpu" and features.dtype == torch.float32 and has_kernel()):
            mixed = functional.linear(features, self.weight, self.bias)
            return functional.hardswish(mixed, inplace=True) if self.activation == "hardswish" else mixed
        return torch.ops.mkldnn._linear_pointwise(features, self.weight, self.bias, self.activation, [], "")


def _traced() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


@cache
def has_kernel() -> bool:
    """Whether this torch has the fused kernel, and it computes what `linear` does."""
    if platform.machine() not in ("x86_64", "AMD64") or not torch.backends.mkldnn.is_available():
        return False
    try:
        given, weight, bias = torch.ones(2, 3), torch.full((4, 3), -0.5), torch.ones(4)
        got = torch.ops.mkldnn._linear_pointwise(given, weight, bias, "hardswish", [], "")
    except (AttributeError, RuntimeError):  # a private operator: another torch may not have it, or not so
        return False
    return torch.allclose(got, functional.hardswish(functional.linear(given, weight, bias)))
