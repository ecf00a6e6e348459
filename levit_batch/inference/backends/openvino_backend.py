"""OpenVINO on a CPU: about a third faster than torch in float32, and more in bfloat16 where the processor has it."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from levit_batch.inference.backends.batches import FixedBatch
from levit_batch.inference.backends.choose import Backend, Exported, Runtime, only_torch

PACKAGES, EXTRA = ("openvino",), "openvino"
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


def refuses(runtime: Runtime) -> str | None:
    if reason := only_torch(runtime):
        return reason
    if runtime.dtype not in PRECISIONS:
        return f"does not compute in {runtime.dtype} on a CPU: use model.dtype=bfloat16 or model.backend=torch"
    if runtime.dtype == "bfloat16" and "BF16" not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return "finds no bfloat16 in this processor: use model.dtype=float32"
    return None


def export(folded: nn.Module, runtime: Runtime) -> Exported:
    """The graph with a fixed batch (a free one costs 12% of the speed), as its two files."""
    import openvino

    side = folded.config.image_size
    pixels = torch.zeros(runtime.batch, side, side, folded.config.num_channels, dtype=torch.uint8)
    graph = openvino.convert_model(torch.export.export(folded, (pixels,), strict=False))
    with tempfile.TemporaryDirectory() as folder:
        openvino.save_model(graph, f"{folder}/model.xml", compress_to_fp16=False)
        return {name: np.fromfile(Path(folder, name), np.uint8) for name in ("model.xml", "model.bin")}


def load(exported: Exported, folded: nn.Module, runtime: Runtime) -> Backend:
    import openvino

    core, weights = _core(), exported["model.bin"]
    # With a shape and a type the tensor is a view: the replicas of a machine share one copy of the weights.
    tensor = openvino.Tensor(weights, openvino.Shape(weights.shape), openvino.Type.u8)
    model = core.read_model(exported["model.xml"].tobytes(), tensor)
    request = core.compile_model(model, "CPU", _options(runtime)).create_infer_request()
    return FixedBatch(partial(_infer, request, weights), runtime.batch)


def _infer(request: Any, held: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """held: the weights, which OpenVINO only looks at: they must live as long as the request."""
    outputs = request.infer([pixels], share_inputs=True)
    return outputs[0], outputs[1]


def _options(runtime: Runtime) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": 1,  # a replica a core: two of one thread beat one of two
        "ENABLE_CPU_PINNING": False,  # else every replica pins itself to the same core
        "INFERENCE_PRECISION_HINT": PRECISIONS[runtime.dtype],
    }


def _core() -> Any:
    import openvino

    return openvino.Core()
