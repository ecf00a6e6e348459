"""Heads without their backbone: stored embeddings in, what is written about them out. No image, no forward pass."""

import dataclasses
import warnings

import numpy as np
import torch
from torch import nn

from levit_batch.errors import ConfigError
from levit_batch.inference.fold import Heads, fold
from levit_batch.inference.predict import Predictor
from levit_batch.job.answers import Answers
from levit_batch.job.config import PredictConfig
from levit_batch.levit.checkpoint import Checkpoint

# Rows of a table are read-only, and nothing here writes to them.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")

BATCH = 1024  # rows whose logits are held at once: 4 MB of 1,000 classes


class Scorer:
    """The heads of a checkpoint, for threads that share them.

    temperature: what the logits are divided by; above 1 scores are less sure, labels stay. Raises CheckpointError or ConfigError
    for heads that the checkpoint has not.
    """

    def __init__(self, checkpoint: Checkpoint, heads: Heads, predict: PredictConfig, temperature: float = 1.0):
        folded = fold(checkpoint.model, heads, checkpoint.processor)
        if predict.per_head and folded.distill_head is None:
            raise ConfigError(f"predict.per_head: {checkpoint.name} has one head; set predict.per_head=false")
        both = [head if head is None else _cooled(head, temperature) for head in (folded.class_head, folded.distill_head)]
        self.head, self.embeddings = _cooled(folded.head, temperature), predict.embeddings
        # What was read is what is written: no answer makes a float16 of it again.
        self.predictor = Predictor(None, predict.model_copy(update={"embeddings": "none"}), tuple(both))

    @torch.inference_mode()
    def __call__(self, stored: np.ndarray) -> Answers:
        """stored: embeddings [N, D], float16 or float32, N > 0."""
        parts = []
        for first in range(0, len(stored), BATCH):
            embedding = torch.from_numpy(stored[first : first + BATCH].astype(np.float32))
            parts.append(self.predictor.answers(embedding.numpy(), self.head(embedding).numpy()))
        answers = _joined(parts)
        answers.embedding = None if self.embeddings == "none" else stored.astype(self.embeddings, copy=False)
        return answers


def _cooled(head: nn.Linear, temperature: float) -> nn.Linear:
    with torch.no_grad():
        head.weight.div_(temperature)
        head.bias.div_(temperature)
    return head


def _joined(parts: list[Answers]) -> Answers:
    fields = [field.name for field in dataclasses.fields(Answers)]
    columns = {name: [getattr(part, name) for part in parts] for name in fields}
    return Answers(**{name: None if some[0] is None else np.concatenate(some) for name, some in columns.items()})
