"""Weights from any published form -> a model that has exactly those weights, with its classes and preprocessing."""

import hashlib
from dataclasses import dataclass
from typing import Any

from torch import nn

from levit_batch.errors import CheckpointError
from levit_batch.levit.checkpoint_files import Where
from levit_batch.levit.config import LevitConfig
from levit_batch.levit.model import LevitForImageClassification, LevitForImageClassificationWithTeacher
from levit_batch.levit.weights import BOOKKEEPING, Published, read_published, refuse_other_sizes


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to predict, and what is needed to use and to name it."""

    model: nn.Module | None  # one of the two classifiers, unfolded, eval, float32; None where it is needed no more
    config: LevitConfig
    processor: dict[str, Any]  # every preprocessor_config.json value in force
    class_names: list[str]  # K names in index order, each once
    digest: str  # sha256 over the weights in Hugging Face's form: the same in every form
    backbone: str  # the same over the backbone alone: equal where embeddings are
    name: str  # as it was asked for
    revision: str | None  # the hub commit it resolved to
    form: str  # "huggingface", "timm" or "authors"


def load_checkpoint(checkpoint: str, revision: str | None = None) -> Checkpoint:
    """Load a hub id, folder or file in any published form.

    The class follows the file: two heads in it mean `LevitForImageClassificationWithTeacher`. Preprocessing is the
    file's own (`preprocessor_config.json`, timm's `config.json`), else the authors'. Class names are the file's own,
    else ImageNet's for 1,000 classes, else `LABEL_i`. Raises CheckpointError naming what is wrong.
    """
    published = read_published(checkpoint, Where(revision))
    refuse_other_sizes(published)
    model, _ = published.fill(_model_class(published))
    names = _unique(published.config.class_names)
    return Checkpoint(
        *(model, published.config, published.processor, names, digest(model), digest(model.levit)),
        *(checkpoint, published.revision, published.form),
    )


def check_labels_photographs(checkpoint: Checkpoint) -> None:
    """Raises CheckpointError for a model that does not say which one of several classes an RGB image is."""
    config = checkpoint.config
    if config.num_channels != 3:
        raise CheckpointError(
            f"checkpoint {checkpoint.name} takes images of {config.num_channels} channels (num_channels), and images have 3 "
            "here; give a checkpoint for RGB images"
        )
    if config.num_labels == 1 or config.problem_type not in (None, "single_label_classification"):
        raise CheckpointError(
            f"checkpoint {checkpoint.name} does not choose one of several classes (problem_type {config.problem_type}, "
            f"num_labels {config.num_labels}), and a softmax over its outputs would mean nothing; give a checkpoint of "
            "single_label_classification"
        )


def digest(model: nn.Module) -> str:
    """sha256 over name, dtype, shape and bytes of every tensor that shapes a prediction, by name.

    Only a model's class, configuration-implied shapes and weights count; float32 is hashed whatever the file stored.
    """
    sha = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if not name.endswith(BOOKKEEPING):
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            sha.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def _model_class(published: Published) -> type:
    """Two heads when any of the second is there, or the configuration says so; a partly missing one fails to load."""
    says_teacher = any("WithTeacher" in name for name in published.config.architectures or ())
    if says_teacher or any(name.startswith("classifier_distill.") for name in published.weights):
        return LevitForImageClassificationWithTeacher
    if not any(name.startswith("classifier.") for name in published.weights):
        raise CheckpointError(
            f"checkpoint {published.name} has no head: classifier.batch_norm.* and classifier.linear.* are missing; "
            "fine-tune it first, or load it with LevitModel.from_pretrained for features"
        )
    return LevitForImageClassification


def _unique(names: list[str]) -> list[str]:
    """Names that tables can hold as a category: a repeated one ("crane", the machine) gets its index."""
    seen: set[str] = set()
    return [
        name if name not in seen and not seen.add(name) else f"{name} ({index})" for index, name in enumerate(names)
    ]
