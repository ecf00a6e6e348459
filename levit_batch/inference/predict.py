"""One replica's model: pixels in; embeddings, logits and what is written about them out."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from torch import nn

from levit_batch.inference.backends.choose import Backend
from levit_batch.job.answers import Answers
from levit_batch.job.config import PredictConfig


class Predictor:
    """Runs a backend over any number of images and answers what `predict` asks for.

    heads: the folded class and distillation heads (`nn.Linear`), needed for `predict.per_head` only.
    """

    def __init__(self, backend: Backend, predict: PredictConfig, heads: tuple[nn.Module, nn.Module] | None = None):
        self.backend, self.predict, self.heads = backend, predict, heads

    def __call__(
        self, arrays: Iterable[np.ndarray], seen: Callable[[np.ndarray, np.ndarray], None] | None = None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Arrays uint8 [N,H,W,3] -> embedding float32 [sum N,D], logits float32 [sum N,K]; None for no image.

        seen: called with the pixels and logits of each batch, in order.
        """
        parts = []
        for pixels in whole_batches(arrays, self.backend.batch):
            parts.append(self.backend(pixels))
            if seen:
                seen(pixels, parts[-1][1])
        if not parts:
            return None
        embedding, logits = (np.concatenate(kind) for kind in zip(*parts, strict=True))
        return embedding, logits

    @torch.inference_mode()
    def answers(self, embedding: np.ndarray, logits: np.ndarray) -> Answers:
        """What is written about images with these embeddings [N,D] and logits [N,K]."""
        scores = torch.from_numpy(logits).softmax(-1)  # [N,K]
        top_scores, top_labels = scores.topk(self.predict.top_k, -1)
        head_label = distill_label = divergence = None
        if self.predict.per_head:
            one, other = (head(torch.from_numpy(embedding)).softmax(-1) for head in self.heads)
            head_label, distill_label = (p.argmax(-1).numpy() for p in (one, other))
            divergence = jensen_shannon(one, other).numpy()
        with np.errstate(over="ignore"):  # what float16 cannot hold shows just below
            kept = None if self.predict.embeddings == "none" else embedding.astype(self.predict.embeddings)
        finite = np.isfinite(logits).all(-1) & (True if kept is None else np.isfinite(kept).all(-1))
        return Answers(
            label=top_labels[:, 0].numpy(),
            score=top_scores[:, 0].numpy(),
            top_labels=top_labels.numpy(),
            top_scores=top_scores.numpy(),
            embedding=kept,
            logits=logits if self.predict.logits else None,
            head_label=head_label,
            distill_label=distill_label,
            head_divergence=divergence,
            finite=finite,
        )


def whole_batches(arrays: Iterable[np.ndarray], batch: int) -> Iterator[np.ndarray]:
    """The same images [N,...] in order, in arrays of a multiple of `batch`; only the last may hold another number.

    A forward pass takes as long for a part of a batch as for a whole one, so what is over waits for the next array.
    """
    over: np.ndarray | None = None
    for array in arrays:
        if over is not None:
            missing = batch - len(over)
            over, array = np.concatenate([over, array[:missing]]), array[missing:]
            if len(over) < batch:
                continue
            yield over
        whole = len(array) - len(array) % batch
        if whole:
            yield array[:whole]
        over = array[whole:] if whole < len(array) else None
    if over is not None:
        yield over


def jensen_shannon(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Jensen-Shannon divergence in bits, from 0 (the heads agree) to 1, of distributions [N,K] -> [N].

    Lin, Divergence measures based on the Shannon entropy, IEEE Trans. Inf. Theory 37 (1991), eq. 4.1.
    """
    mean = (p + q) / 2
    return ((entropy(mean) - (entropy(p) + entropy(q)) / 2) / np.log(2)).clamp(0, 1)


def entropy(p: torch.Tensor) -> torch.Tensor:
    return torch.special.entr(p).sum(-1)
