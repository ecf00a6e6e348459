"""torch itself: always there, on every device and in every dtype; the one file that knows GPUs. Not run on one yet.

On a CPU the model runs as it is. On a GPU it is captured as a CUDA graph for a batch, and for a quarter of one, which the tail of
a chunk takes; pixels travel from pinned memory, on a stream of their own, while the batch before computes.
"""

import copy
import re
import warnings
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from levit_batch.errors import DeviceLostError, JobError, brief, causes
from levit_batch.inference.backends.batches import batches
from levit_batch.inference.backends.choose import Backend, Exported, Runtime

# Pixels in Ray's shared memory are read-only, and nothing here writes to them.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

PACKAGES, EXTRA = (), ""
GPU = torch.device("cuda")


def load(exported: Exported | None, folded: nn.Module, runtime: Runtime) -> Backend:
    """The model on its device; compiled, captured and warm where it is to be."""
    # A copy: what comes out of Ray's shared memory is read-only, and stays the float32 reference.
    model = DeviceModel(copy.deepcopy(folded), runtime)
    if runtime.gpu or runtime.compile:
        shape = (folded.config.image_size, folded.config.image_size, folded.config.num_channels)
        for count in (runtime.batch, 1):
            model(np.zeros((count, *shape), np.uint8))
    return model


class DeviceModel:
    """A folded model on its device: uint8 [N,H,W,3] -> embedding float32 [N,D], logits float32 [N,K], for any N > 0.

    For any thread, one at a time. A batch that does not fit into the memory is halved for good.
    """

    def __init__(self, folded: nn.Module, runtime: Runtime):
        self.runtime, self.batch = runtime, runtime.batch
        self.device = GPU if runtime.gpu else torch.device("cpu")
        if runtime.gpu:  # no TF32, no sums in half precision: who asks for float32 wants what other machines compute
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
            torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
        else:
            torch.set_num_threads(1)  # a replica a core
        model = folded.to(self.device, getattr(torch, runtime.dtype), memory_format=torch.channels_last).eval()
        self.model = torch.compile(model, dynamic=False) if runtime.compile else model
        self.feed = PinnedFeed(self.device) if runtime.gpu else iter
        self.graphs: dict[int, Graph] = {}

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        while True:
            try:
                return self._run(pixels)
            except RuntimeError as e:
                error = no_memory(e)
            self._smaller(error)  # not in there, where what was raised still holds the batch's tensors

    @torch.inference_mode()
    def _run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        gpu = self.runtime.gpu
        parts = torch.from_numpy(pixels).split(self.batch) if gpu else map(torch.from_numpy, batches(pixels, self.batch))
        answers = zip(*[self._forward(part) for part in self.feed(parts)], strict=True)
        host = [torch.cat(kind)[: len(pixels)].to("cpu", non_blocking=gpu) for kind in answers]  # from a GPU into pinned memory
        if gpu:
            torch.cuda.current_stream(self.device).synchronize()
        return host[0].numpy(), host[1].numpy()

    def _forward(self, pixels: Tensor) -> list[Tensor]:
        """Embedding and logits, float32, of at most a batch."""
        if not self.runtime.gpu:
            return [part.float() for part in self.model(pixels)]
        small = self.batch // 4 if self.batch >= 64 else self.batch  # which the check's 16 images fit in
        size = small if len(pixels) <= small else self.batch
        if size not in self.graphs:
            self.graphs[size] = Graph(self.model, (size, *pixels.shape[1:]), self.device)
        return [part.to(torch.float32, copy=True) for part in self.graphs[size](pixels)]

    def _smaller(self, error: str) -> None:
        """Half the batch from now on. Raises JobError where one image does not fit."""
        if self.batch == 1:
            raise JobError(f"the device has no memory for one image: {error}")
        self.batch //= 2
        self.graphs.clear()
        torch.cuda.empty_cache()  # does nothing where there is no GPU


class Graph:
    """`model` captured for one shape, for any thread to replay: uint8 [n,H,W,C] -> its answers [n,...], until the next replay."""

    def __init__(self, model: nn.Module, shape: tuple[int, ...], device: torch.device):
        self.pixels = torch.zeros(shape, dtype=torch.uint8, device=device)  # whose rest holds earlier images
        for _ in range(2):  # compiles, chooses kernels and runs out of memory here, where that is allowed
            model(self.pixels)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.answers = model(self.pixels)

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        self.pixels[: len(pixels)].copy_(pixels)
        self.graph.replay()
        return [part[: len(pixels)] for part in self.answers]


class PinnedFeed:
    """Each batch on the GPU, sent when it is asked for: the one before still computes then, as nobody waits for a replay."""

    def __init__(self, device: torch.device):
        self.device, self.copies = device, torch.cuda.Stream(device)

    def __call__(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        computing = torch.cuda.current_stream(self.device)
        for part in parts:
            with torch.cuda.stream(self.copies):  # torch keeps pinned memory, and gives it again once its copy has left
                there = part.pin_memory().to(self.device, non_blocking=True)
            computing.wait_stream(self.copies)
            there.record_stream(computing)  # its memory is not reused before this stream is done with it
            yield there


def no_memory(error: RuntimeError) -> str:
    """What `error` says where memory ran out, also where a capture that this broke off, or a library, reports something else.

    Raises DeviceLostError where every later CUDA call of this process fails, too (an illegal address, ECC), and else `error`.
    """
    if any(re.search("OutOfMemory|out of memory|ALLOC_FAILED", repr(one)) for one in causes(error)):
        return brief(error)
    if isinstance(error, torch.AcceleratorError) or re.search("(CUDA|cuDNN) error", str(error)):
        raise DeviceLostError(f"the GPU failed: {brief(error)}") from None
    raise error


def gpu_facts() -> dict[str, str | int]:
    """Which GPU this process computes on, and the most bytes that it took of it."""
    return {"name": torch.cuda.get_device_name(), "memory": torch.cuda.max_memory_reserved()}
