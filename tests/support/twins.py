"""The same model twice: ours, and transformers' with the same configuration and weights."""

import torch
import transformers

import levit_batch
from levit_batch.levit.config import LevitConfig
from tests.support.models import TINY, normalised, photographs

CLASSES = ["LevitModel", "LevitForImageClassification", "LevitForImageClassificationWithTeacher"]
PIXELS = normalised(photographs(3, 64, seed=3))  # [3, 3, 64, 64]


def pair(name: str, **fields) -> tuple[torch.nn.Module, torch.nn.Module]:
    """(ours, transformers') of the class `name`, tiny, in eval mode; `fields` change the configuration."""
    values = TINY.to_dict() | {"id2label": None, "label2id": None, "num_labels": 7} | fields
    theirs = getattr(transformers, name)(transformers.LevitConfig(**values))
    torch.manual_seed(0)
    for part in theirs.modules():
        if isinstance(part, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            part.weight.data.uniform_(0.7, 1.3), part.bias.data.normal_(0, 0.2)
    ours = getattr(levit_batch, name)(LevitConfig(**values))
    ours.load_state_dict(theirs.state_dict())
    return ours.eval(), theirs.eval()
