"""What a model says about images, as the row takes it."""

from dataclasses import dataclass

import numpy as np


@dataclass
class Answers:
    """Everything the output says about N images. Arrays share their first axis; None where not asked for."""

    label: np.ndarray  # int64 [N]
    score: np.ndarray  # float32 [N], softmax of the logits
    top_labels: np.ndarray  # int64 [N, k]
    top_scores: np.ndarray  # float32 [N, k]
    embedding: np.ndarray | None  # float16 | float32 [N, D]
    logits: np.ndarray | None  # float32 [N, K]
    head_label: np.ndarray | None  # int64 [N]
    distill_label: np.ndarray | None  # int64 [N]
    head_divergence: np.ndarray | None  # float32 [N]
    finite: np.ndarray  # bool [N]: False where the model gave NaN or infinity
