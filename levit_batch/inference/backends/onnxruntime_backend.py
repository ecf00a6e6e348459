"""ONNX Runtime on a CPU, in float32."""

import io
import logging

import numpy as np
import torch
from torch import nn

from levit_batch.inference.backends.batches import FixedBatch
from levit_batch.inference.backends.choose import Backend, Exported, Runtime, only_torch

PACKAGES, EXTRA = ("onnxruntime", "onnx", "onnxscript"), "onnx"


def refuses(runtime: Runtime) -> str | None:
    if reason := only_torch(runtime):
        return reason
    if runtime.dtype != "float32":
        return f"computes in float32 on a CPU, not {runtime.dtype}: use model.dtype=float32 or another backend"
    return None


def export(folded: nn.Module, runtime: Runtime) -> Exported:
    """The graph with a fixed batch, as one ONNX file. Needs onnxscript, which the extra installs."""
    side = folded.config.image_size
    pixels = torch.zeros(runtime.batch, side, side, folded.config.num_channels, dtype=torch.uint8)
    logging.getLogger("torch.onnx._internal.exporter").setLevel(logging.ERROR)  # it misses torchvision, we do not
    names = {"input_names": ["pixels"], "output_names": ["embedding", "logits"]}
    program = torch.onnx.export(folded, (pixels,), dynamo=True, verbose=False, **names)
    file = io.BytesIO(program.model_proto.SerializeToString())
    return {"model.onnx": np.frombuffer(file.getbuffer(), np.uint8)}


def load(exported: Exported, folded: nn.Module, runtime: Runtime) -> Backend:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # a replica a core
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        exported["model.onnx"].tobytes(), options, providers=["CPUExecutionProvider"]
    )
    return FixedBatch(lambda pixels: session.run(["embedding", "logits"], {"pixels": pixels}), runtime.batch)
