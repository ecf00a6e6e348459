"""torch itself: always there, on every device and in every dtype; the one file that knows about GPUs.

On a CPU the same code runs without the transfers. Not run on a GPU yet: none was at hand. There, pixels of the next batch
travel on a stream of their own, from pinned memory, while this batch computes; batches have one shape, the last is padded, so
that CUDA graphs replay; a batch that does not fit into the memory is halved.
"""

import copy
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from levit_batch.errors import JobError
from levit_batch.inference.backends.batches import batches
from levit_batch.inference.backends.choose import Backend, Exported, Runtime

# Pixels in Ray's shared memory are read-only, and nothing here writes to them.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

PACKAGE, EXTRA = "torch", ""
BATCHES = (64, 128, 256, 512, 1024)  # tried in turn on a GPU; the last is half of a chunk
GAIN = 1.05  # in images a second, for which a batch may double


def refuses(runtime: Runtime) -> str | None:
    return None


def export(folded: nn.Module, runtime: Runtime) -> Exported | None:
    return None


def load(exported: Exported | None, folded: nn.Module, runtime: Runtime) -> Backend:
    # A copy: what comes out of Ray's shared memory is read-only, and stays the float32 reference.
    return DeviceModel(copy.deepcopy(folded), runtime)


class DeviceModel:
    """A folded model on its device: uint8 [N,H,W,3] -> embedding float32 [N,D], logits float32 [N,K], for any N > 0."""

    def __init__(self, folded: nn.Module, runtime: Runtime):
        self.runtime = runtime
        self.device = torch.device("cuda" if runtime.gpu else "cpu")
        if runtime.gpu:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        else:
            torch.set_num_threads(1)  # a replica a core
        model = folded.to(self.device, getattr(torch, runtime.dtype), memory_format=torch.channels_last).eval()
        self.model = model
        self.feed = PinnedFeed(self.device) if runtime.gpu else feed
        if runtime.tune:  # before it is compiled: each shape would be compiled anew
            shape = (folded.config.image_size, folded.config.image_size, folded.config.num_channels)
            self.runtime = replace(runtime, batch=fastest_batch(self._run, shape))
        if runtime.compile:  # reduce-overhead is what captures CUDA graphs; a CPU has none
            self.model = torch.compile(model, mode="reduce-overhead" if runtime.gpu else None)

    @property
    def batch(self) -> int:
        return self.runtime.batch

    def __call__(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        while True:
            try:
                return self._run(pixels, self.runtime.batch)
            except torch.OutOfMemoryError as e:
                self._smaller(e)

    @torch.inference_mode()
    def _run(self, pixels: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
        parts = []
        for given in self.feed(torch.from_numpy(part) for part in batches(pixels, batch)):
            # Cloned, since a CUDA graph's next replay overwrites what it gave.
            parts.append([part.float().clone() if self.runtime.gpu else part.float() for part in self.model(given)])
        embedding, logits = (torch.cat(kind)[: len(pixels)].cpu().numpy() for kind in zip(*parts, strict=True))
        return embedding, logits

    def _smaller(self, error: Exception) -> None:
        """Half the batch from now on. Raises JobError where one image does not fit."""
        if self.runtime.batch == 1:
            raise JobError(f"the device has no memory for one image: {error}") from None
        self.runtime = replace(self.runtime, batch=self.runtime.batch // 2)
        if self.runtime.gpu:
            torch.cuda.empty_cache()


def fastest_batch(run: Callable[[np.ndarray, int], object], shape: tuple[int, ...]) -> int:
    """The batch of `BATCHES` from which doubling gains less than `GAIN`, or does not fit into the memory."""
    best, rate = BATCHES[0], 0.0
    for batch in BATCHES:
        pixels = np.zeros((batch, *shape), np.uint8)
        try:
            run(pixels, batch)  # warms up
            since = time.perf_counter()
            for _ in range(3):
                run(pixels, batch)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return best
        reached = 3 * batch / (time.perf_counter() - since)
        if reached < GAIN * rate:
            return best
        best, rate = batch, reached
    return best


def feed(parts: Iterable[Tensor]) -> Iterator[Tensor]:
    """On a CPU the pixels are where they are needed."""
    yield from parts


class PinnedFeed:
    """Each batch on the GPU, the next already on its way while the caller computes with this one."""

    def __init__(self, device: torch.device):
        self.device = device
        self.copies = torch.cuda.Stream(device)
        self.pinned: list[Tensor | None] = [None, None]
        self.sent: list[torch.cuda.Event | None] = [None, None]

    def __call__(self, parts: Iterable[Tensor]) -> Iterator[Tensor]:
        waiting = None
        for index, part in enumerate(parts):
            coming = self._send(part, index % 2)
            if waiting is not None:
                yield self._arrived(waiting)
            waiting = coming
        if waiting is not None:
            yield self._arrived(waiting)

    def _send(self, part: Tensor, slot: int) -> tuple[Tensor, torch.cuda.Event]:
        if self.sent[slot] is not None:
            self.sent[slot].synchronize()  # the copy that last used this pinned buffer has left it
        if self.pinned[slot] is None or self.pinned[slot].shape != part.shape:
            self.pinned[slot] = torch.empty_like(part).pin_memory()
        self.pinned[slot].copy_(part)
        with torch.cuda.stream(self.copies):
            there = self.pinned[slot].to(self.device, non_blocking=True)
            self.sent[slot] = torch.cuda.Event()
            self.sent[slot].record(self.copies)
        return there, self.sent[slot]

    def _arrived(self, sent: tuple[Tensor, torch.cuda.Event]) -> Tensor:
        there, event = sent
        computing = torch.cuda.current_stream(self.device)
        computing.wait_event(event)
        there.record_stream(computing)  # its memory is not reused before this stream is done with it
        return there
