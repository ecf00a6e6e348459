"""What `labels` add to a model's output: the loss that its configuration's `problem_type` names, as in transformers."""

import torch
from torch import Tensor
from torch.nn import functional

from levit_batch.levit.config import LevitConfig


def classification_loss(logits: Tensor, labels: Tensor, config: LevitConfig, smoothing: float = 0.0) -> Tensor:
    """The mean loss (a scalar) of logits [B, K].

    `problem_type` "single_label_classification" is the cross-entropy of class indices (any shape of B of them), or of
    probabilities [B, K]; "multi_label_classification" the binary cross-entropy of float labels [B, K]; "regression" the
    squared error of numbers [B, K], or of B numbers where K is 1. None becomes, for good, what the labels look like: one
    class is regression, whole numbers (int32, int64) are class indices, all others several labels. `smoothing` is the
    cross-entropy's; raises ValueError for the other two.
    """
    if config.problem_type is None:
        config.problem_type = _kind(labels, config)
    if smoothing and config.problem_type != "single_label_classification":
        raise ValueError(f"label_smoothing belongs to single_label_classification, not to {config.problem_type}")
    labels = labels.to(logits.device)
    if config.problem_type == "regression":
        one = config.num_labels == 1
        return functional.mse_loss(logits.squeeze() if one else logits, labels.squeeze() if one else labels)
    if config.problem_type == "multi_label_classification":
        return functional.binary_cross_entropy_with_logits(logits, labels)
    classes = labels if labels.is_floating_point() else labels.flatten()
    return functional.cross_entropy(logits, classes, label_smoothing=smoothing)


def _kind(labels: Tensor, config: LevitConfig) -> str:
    if config.num_labels == 1:
        return "regression"
    return f"{'single' if labels.dtype in (torch.int64, torch.int32) else 'multi'}_label_classification"
