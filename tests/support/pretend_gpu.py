"""Stand-ins for a GPU and for what torch.cuda does on it, on a CPU: tests of what our code does with a GPU, not of a GPU.

A graph records the operators of its capture and runs the same ones again over the same tensors when it is replayed, so that what
is overwritten, left over or never copied shows. A capture computes nothing: until the first replay the answers are not numbers.

Put this folder on PYTHONPATH and set `PRETEND_GPU`: `sitecustomize.py` then has it stand in, in every Python process, when the
torch backend is imported. `PRETEND_GPU` may name a file: the process that finds it at its tenth replay removes it, and breaks.
"""

import contextlib
import importlib.machinery
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

TENTH = 10  # a replica is warm, checked and at its chunks then
BACKEND = "levit_batch.inference.backends.torch_backend"


def stand_in(patch: Callable[[Any, str, Any], Any] = setattr) -> type:
    """Have the torch backend take the CPU for a GPU, by `patch(object, name, value)`; the class of graphs, which counts them."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    from levit_batch.inference.backends import torch_backend

    class Recorder(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[tuple] = []

        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            out = operator(*args, **(kwargs or {}))
            self.calls.append((operator, args, kwargs or {}, out))
            return out

    class Graph:
        made: list["Graph"] = []
        replays = 0

        def __init__(self) -> None:
            self.made.append(self)
            self.calls: list[tuple] = []

        def replay(self) -> None:
            Graph.replays += 1
            if Graph.replays == TENTH:
                break_once()
            for operator, args, kwargs, out in self.calls:
                again = operator(*args, **kwargs)
                for there, now in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if there.data_ptr() != now.data_ptr():  # else a view, or in place
                        there.copy_(now)

    @contextlib.contextmanager
    def capture(graph: Graph, **options: Any) -> Iterator[None]:
        with Recorder() as recorder:
            yield
        graph.calls = recorder.calls
        for part in tree_leaves([call[3] for call in recorder.calls]):
            if part.is_floating_point():
                part.fill_(float("nan"))

    class Stream:
        def __init__(self, device: Any = None) -> None:
            pass

        def wait_stream(self, other: "Stream") -> None:
            pass

        def synchronize(self) -> None:
            pass

    cuda = {"CUDAGraph": Graph, "graph": capture, "Stream": Stream, "stream": lambda stream: contextlib.nullcontext()}
    cuda |= {"current_stream": Stream, "synchronize": lambda device=None: None}
    cuda |= {"get_device_name": lambda device=None: "Pretended GPU", "max_memory_reserved": lambda device=None: 1 << 30}
    for name, value in cuda.items():
        patch(torch.cuda, name, value)
    patch(torch_backend, "GPU", torch.device("cpu"))
    patch(torch.Tensor, "pin_memory", torch.Tensor.clone)
    patch(torch.Tensor, "record_stream", lambda tensor, stream: None)
    return Graph


def break_once() -> None:
    import torch

    with contextlib.suppress(OSError):
        Path(os.environ.get("PRETEND_GPU", "")).unlink()
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")


def register() -> None:
    sys.meta_path.insert(0, Finder())


class Finder:
    """Finds the torch backend as Python does, and stands in once it is loaded."""

    @staticmethod
    def find_spec(name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name != BACKEND:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        execute = spec.loader.exec_module

        def then_stand_in(module: Any) -> None:
            execute(module)
            sys.modules[name] = module
            stand_in()

        spec.loader.exec_module = then_stand_in
        return spec
