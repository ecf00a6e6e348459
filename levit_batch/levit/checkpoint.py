"""Weights from any published form -> a model that has exactly those weights, with its classes and preprocessing.

Nothing is filled in: a tensor that is unknown, missing or of the wrong shape is an error, never a random number.
"""

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Any

import torch
from torch import Tensor, nn

from levit_batch.errors import CheckpointError
from levit_batch.levit.blocks import bias_index
from levit_batch.levit.checkpoint_files import CheckpointFiles, find_files, read_tensors
from levit_batch.levit.checkpoint_forms import Weights, infer_config, to_huggingface
from levit_batch.levit.config import LevitConfig
from levit_batch.levit.model import LevitForImageClassification, LevitForImageClassificationWithTeacher, LevitModel
from levit_batch.levit.preprocessing import full_processor, timm_processor

BOOKKEEPING = ".num_batches_tracked"  # batch norm's step count: no effect on any prediction
BIAS_INDEX = ".attention_bias_idxs"  # a constant that some files repeat
TIMM_NAMES = {f"levit_{conv}{size}" for conv in ("", "conv_") for size in ("128s", "128", "192", "256", "384")}


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to predict, and what is needed to use and to name it."""

    model: nn.Module | None  # one of the two classifiers, unfolded, eval, float32; None where it is needed no more
    config: LevitConfig
    processor: dict[str, Any]  # every preprocessor_config.json value in force
    class_names: list[str]  # K names in index order, each once
    digest: str  # sha256 over the weights in Hugging Face's form: the same in every form
    name: str  # as it was asked for
    revision: str | None  # the hub commit it resolved to
    form: str  # "huggingface", "timm" or "authors"


def load_checkpoint(checkpoint: str, revision: str | None = None) -> Checkpoint:
    """Load a hub id, folder or file in any published form.

    The class follows the file: two heads in it mean `LevitForImageClassificationWithTeacher`. Preprocessing is the
    file's own (`preprocessor_config.json`, timm's `config.json`), else the authors'. Class names are the file's own,
    else ImageNet's for 1,000 classes, else `LABEL_i`. Raises CheckpointError naming what is wrong.
    """
    files = find_files(checkpoint, revision)
    weights, form, config = _weights_and_config(files)
    model_class = _model_class(weights, config, checkpoint)
    model = _filled(model_class(config), weights, checkpoint)
    model.processor = _processor(files, config)
    return Checkpoint(
        model, config, model.processor, _unique(config.class_names), digest(model), checkpoint, files.revision, form
    )


def load_into(model_class: type, checkpoint: str, revision: str | None = None) -> Any:
    """The weights of `checkpoint` in the class asked for; see `from_pretrained` of the models."""
    files = find_files(checkpoint, revision)
    weights, _, config = _weights_and_config(files)
    wanted = {f"{head}." for head in model_class.heads}
    unused = {"classifier.", "classifier_distill."} - wanted
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(tuple(unused))}
    if model_class is LevitModel:
        weights = {name.removeprefix("levit."): tensor for name, tensor in weights.items()}
    model = _filled(model_class(config), weights, checkpoint)
    model.processor = _processor(files, config)
    return model


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


def _weights_and_config(files: CheckpointFiles) -> tuple[Weights, str, LevitConfig]:
    weights, form = to_huggingface(read_tensors(files.weights))
    _refuse_other_timm(files.config)
    config = _config(files.config, weights)
    if not config.has_own_class_names and config.num_labels == 1000:
        config = config.with_labels(imagenet_names())
    return _without_constants(weights, config, files), form, config


def _config(values: dict[str, Any] | None, weights: Weights) -> LevitConfig:
    """The file's own configuration, else what its tensors imply, with timm's class names where it has them."""
    if values is None:
        return infer_config(weights)
    if "architecture" in values:
        return _with_timm_names(infer_config(weights), values)
    if not {"id2label", "label2id", "num_labels"} & values.keys() and "classifier.linear.bias" in weights:
        values = values | {"num_labels": len(weights["classifier.linear.bias"])}
    return LevitConfig.from_dict(values)


def _with_timm_names(config: LevitConfig, values: dict[str, Any]) -> LevitConfig:
    values = (values.get("pretrained_cfg") or {}) | values
    names, descriptions = values.get("label_names"), values.get("label_descriptions") or {}
    if not names:
        return config
    if len(names) != config.num_labels:
        raise CheckpointError(f"timm's config.json names {len(names)} classes, the head has {config.num_labels}")
    return config.with_labels([descriptions.get(name, name) for name in names])


def _refuse_other_timm(values: dict[str, Any] | None) -> None:
    name = (values or {}).get("architecture")
    if name is not None and name not in TIMM_NAMES:
        raise CheckpointError(
            f"timm's {name} is not one of the published LeViT sizes (other activations or stem): {sorted(TIMM_NAMES)}"
        )


def _without_constants(weights: Weights, config: LevitConfig, files: CheckpointFiles) -> Weights:
    """Drop the offset tables that some files repeat, after making sure that they say what the model does."""
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith(BIAS_INDEX)}
    for name in weights.keys() - kept.keys():
        biases = kept.get(name.replace(BIAS_INDEX, ".attention_biases"))
        side = 0 if biases is None else int(biases.shape[1] ** 0.5)
        known = [bias_index(side, stride) for stride in (1, *(down.stride for down in config.downs()))]
        if not any(torch.equal(weights[name], table) for table in known):
            raise CheckpointError(f"{files.weights}: {name} is not the table of a LeViT's square grid")
    return kept


def _model_class(weights: Weights, config: LevitConfig, checkpoint: str) -> type:
    """Two heads when any of the second is there, or the configuration says so; a partly missing one fails to load."""
    says_teacher = any("WithTeacher" in name for name in config.architectures or ())
    if says_teacher or any(name.startswith("classifier_distill.") for name in weights):
        return LevitForImageClassificationWithTeacher
    if not any(name.startswith("classifier.") for name in weights):
        raise CheckpointError(
            f"checkpoint {checkpoint} has no head: classifier.batch_norm.* and classifier.linear.* are missing; "
            "fine-tune it first, or load it with LevitModel.from_pretrained for features"
        )
    return LevitForImageClassification


def _filled(model: nn.Module, weights: Weights, checkpoint: str) -> nn.Module:
    """Strictly load; the batch norms' step counts may be absent."""
    expected = model.state_dict()
    missing = [name for name in expected if name not in weights and not name.endswith(BOOKKEEPING)]
    unknown = [name for name in weights if name not in expected]
    both = [name for name in expected if name in weights]
    misshapen = [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in both
        if weights[name].shape != expected[name].shape
    ]
    problems = {"missing": missing, "unknown": unknown, "misshapen": misshapen}
    problems["not finite numbers"] = [name for name in both if not misshapen and not _usable(weights[name])]
    if any(problems.values()):
        raise CheckpointError(f"checkpoint {checkpoint} does not fit its LeViT: " + _listed(problems))
    model.load_state_dict(weights, strict=False)
    return model.float().eval()


def _usable(tensor: Tensor) -> bool:
    return tensor.dtype == torch.int64 or (tensor.is_floating_point() and bool(tensor.isfinite().all()))


def _listed(problems: dict[str, list[str]], at_most: int = 8) -> str:
    texts = []
    for kind, names in problems.items():
        more = f" and {len(names) - at_most} more" if len(names) > at_most else ""
        if names:
            texts.append(f"{kind}: {', '.join(names[:at_most])}{more}")
    return "; ".join(texts)


def _processor(files: CheckpointFiles, config: LevitConfig) -> dict[str, Any]:
    if files.preprocessor is None and "architecture" in (files.config or {}):
        return timm_processor(files.config, config)
    return full_processor(files.preprocessor, config)


def imagenet_names() -> list[str]:
    """The 1,000 class names of ImageNet-1k in index order, as the published configurations have them."""
    text = resources.files("levit_batch.levit").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return text.splitlines()


def _unique(names: list[str]) -> list[str]:
    """Names that tables can hold as a category: a repeated one ("crane", the machine) gets its index."""
    seen: set[str] = set()
    return [
        name if name not in seen and not seen.add(name) else f"{name} ({index})" for index, name in enumerate(names)
    ]
