"""Small fine-tunings for tests, on the digits that ship with the demo."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from levit_batch.inference.fold import fold
from levit_batch.job.chunks import plan_chunks
from levit_batch.job.config import SourceConfig
from levit_batch.job.load import apply_override, read_yaml, validate
from levit_batch.job.row import IMAGE_BYTES, TARGET
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.pixels.preprocess import Preprocessor
from levit_batch.sources.source import open_source
from levit_batch.training.config import FinetuneConfig
from tests.support import CONFIGS

DEMO = CONFIGS / "finetune_demo.yaml"
SMALL = ("train.epochs=2", "source.limit=256", "model.config.hidden_sizes=[16, 24, 32]",
         "model.config.num_attention_heads=[2, 3, 4]", "model.config.key_dim=[8, 8, 8]")  # fmt: skip
TINY_SHAPE = {"image_size": 32, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 3, 4], "depths": [1, 1, 1],
              "key_dim": [8, 8, 8]}  # fmt: skip


def config(output: Path, *overrides: str, small: bool = True) -> FinetuneConfig:
    """The demo's fine-tuning into `output`, with each `key=value`; `small`: two epochs of 256 rows, a tiny model."""
    values = read_yaml(str(DEMO))
    paths = (f"source.path={CONFIGS}/demo/train", f"output.path={output}")
    for override in (*paths, *(SMALL if small else ()), *overrides):
        apply_override(values, override, FinetuneConfig)
    return validate(values, str(DEMO), FinetuneConfig)


def held_out() -> tuple[list[bytes | None], np.ndarray]:
    """The encoded images that the demo labels, and what they show."""
    source = open_source(SourceConfig(path=str(CONFIGS / "demo" / "label"), target_column="label"))
    tables = [table for chunk in plan_chunks(source.shards(), 512) for table in source.read(chunk)]
    images = [data for table in tables for data in table[IMAGE_BYTES].to_pylist()]
    return images, np.concatenate([table[TARGET].to_numpy() for table in tables])


def accuracy(folder: Path) -> float:
    """Top-1 on the good rows of the held-out half, with the path that labelling takes."""
    images, targets = held_out()
    checkpoint = load_checkpoint(str(folder))
    pixels, errors = Preprocessor(checkpoint.processor)(images)
    good = np.array([error is None for error in errors])
    _, logits = fold(checkpoint.model, "average", checkpoint.processor)(torch.from_numpy(pixels[good]))
    return float((logits.argmax(1).numpy() == targets[good]).mean())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(str(folder)).model.state_dict()


def same_weights(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
