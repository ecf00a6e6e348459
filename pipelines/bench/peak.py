"""What the hardware reaches at the best: in large matrix products, and in copies within a GPU's memory; and how time is taken."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from levit_batch.inference.backends import torch_backend

LEAST_SECONDS = 0.5  # of each measurement of a model or of the hardware
EDGE = {"float32": 1024, "bfloat16": 2048}  # of the matrices whose product gives a core's peak
GPU_EDGE, GPU_PRODUCTS = 8192, 20  # the same for a GPU, and how many at a time: so that it never waits for the next
COPIED = 1 << 30  # bytes


def peak_macs(dtype: str, gpu: bool) -> float:
    """Multiply-adds a second that one core, or the GPU, reaches in a large matrix product of `dtype`."""
    kind = getattr(torch, dtype)
    if gpu:
        one = torch.randn(GPU_EDGE, GPU_EDGE, device=torch_backend.GPU).to(kind)
        return GPU_PRODUCTS * GPU_EDGE**3 / on_gpu(lambda: [one @ one for _ in range(GPU_PRODUCTS)])
    edge = EDGE.get(dtype, 1024)
    one, other = (torch.randn(edge, edge).to(kind) for _ in range(2))
    if kind == torch.float32 and torch.backends.mkldnn.is_available():
        from levit_batch.inference.fast_linear import FastLinear

        linear = FastLinear(edge, edge).requires_grad_(False)  # the same kernel as the model's, not MKL's
        return edge**3 / seconds(lambda: linear(one), LEAST_SECONDS)
    return edge**3 / seconds(lambda: one @ other, LEAST_SECONDS)


def memory_speed() -> float:
    """Bytes a second that the GPU reads and writes in a copy within its memory, which is what bounds a LeViT there."""
    one, other = (torch.zeros(COPIED, dtype=torch.uint8, device=torch_backend.GPU) for _ in range(2))
    return 2 * COPIED / on_gpu(lambda: one.copy_(other))


def on_gpu(work: Callable[[], Any]) -> float:
    """The seconds of `work`, to its end on the GPU."""

    def to_the_end() -> None:
        work()
        torch.cuda.synchronize()

    return seconds(to_the_end, LEAST_SECONDS)


def seconds(work: Callable[[], Any], least: float = 0.0) -> float:
    """The median time of `work`, called once before, then at least three times and `least` seconds."""
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < least:
        since = time.perf_counter()
        work()
        times.append(time.perf_counter() - since)
    return float(np.median(times))
