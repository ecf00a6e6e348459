"""A predictor for one replica: device, threads, batch size."""

from typing import Any

import numpy as np
import torch

from levit_batch.predict import Predictor

CPU_BATCH, GPU_BATCH = 8, 256


def make_predictor(folded: Any, work: Any) -> Predictor:
    gpu = torch.cuda.is_available() and work.gpu
    device = torch.device("cuda" if gpu else "cpu")
    if not gpu:
        torch.set_num_threads(1)
    # A copy: what comes out of Ray's shared memory is read-only.
    model = folded.to(device=device, dtype=getattr(torch, work.dtype)).eval()
    asked = work.config.compute.batch_size
    heads = (folded.class_head, folded.distill_head) if work.config.predict.per_head else None

    @torch.inference_mode()
    def backend(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        embedding, logits = model(torch.from_numpy(pixels).to(device))
        return embedding.float().cpu().numpy(), logits.float().cpu().numpy()

    return Predictor(backend, work.config.predict, asked if asked != "auto" else GPU_BATCH if gpu else CPU_BATCH, heads)
