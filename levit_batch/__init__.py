"""levit-batch: a LeViT label and an embedding for every image of a large dataset.

The road of one image, and the wings along it:

    job        a YAML becomes a frozen configuration; a shard's rows are cut into chunks
    storage    a path becomes files, wherever they are, and tells which content each has
    sources    a chunk becomes tables: the encoded image or why there is none, the truth, the kept columns
    pixels     the bytes become uint8 pixels of the model's size, or the row's error
    levit      the weights, in whichever form they were published, become a model with its processor
    inference  the model is folded and exported; pixels become an embedding and logits, and these a label
    table      rows and errors go back side by side, and the chunk becomes one file of the output
    results    the finished table becomes metrics, a page, drift, exports
    training   and, the other way round, a source becomes a checkpoint

Imports go one way only (tests/test_house.py):

    errors < job < storage < pixels < sources, levit, table < inference, results < training < pipelines

The names below are importable from here; each loads its module (and torch) only when it is used.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any


def hands_on(package: str, rooms: dict[str, list[str]]) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """`__getattr__`, `__dir__` and `__all__` of a package that hands on these names of its rooms, each loaded when it is used."""
    home = {name: f"{package}.{room}" for room, names in rooms.items() for name in names}

    def load(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(home[name]), name)

    return load, lambda: sorted(home), sorted(home)


__getattr__, __dir__, __all__ = hands_on(
    __name__,
    {
        "levit.config": ["LevitConfig"],
        "levit.variants": ["VARIANTS"],
        "levit.model": ["LevitModel", "LevitForImageClassification", "LevitForImageClassificationWithTeacher"],
        "levit.processor": ["LevitImageProcessor", "LevitFeatureExtractor"],
        "levit.checkpoint": ["Checkpoint", "load_checkpoint"],
        "inference.fold": ["FoldedLevit"],
    },
)
