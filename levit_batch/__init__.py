"""levit-batch: a LeViT label and an embedding for every image of a large dataset.

The names below are importable from here; each loads its module (and torch) only when it is used.
"""

from importlib import import_module
from typing import Any

_PUBLIC = {
    "LevitConfig": "levit.config",
    "VARIANTS": "levit.config",
    "LevitModel": "levit.model",
    "LevitForImageClassification": "levit.model",
    "LevitForImageClassificationWithTeacher": "levit.model",
    "LevitImageProcessor": "levit.processor",
    "LevitFeatureExtractor": "levit.processor",
    "Checkpoint": "levit.checkpoint",
    "load_checkpoint": "levit.checkpoint",
    "FoldedLevit": "inference.fold",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'levit_batch' has no attribute {name!r}")
    return getattr(import_module(f"levit_batch.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
