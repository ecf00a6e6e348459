"""The weights and descriptions of any published form, and a model strictly filled with them.

Nothing is filled in: a tensor that is unknown, missing or of the wrong shape is an error, never a random number.
"""

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from levit_batch.errors import CheckpointError
from levit_batch.levit.blocks import bias_index
from levit_batch.levit.checkpoint_files import CheckpointFiles, Where, find_files
from levit_batch.levit.checkpoint_forms import Weights, infer_config, to_huggingface
from levit_batch.levit.checkpoint_tensors import read_tensors
from levit_batch.levit.config import LevitConfig
from levit_batch.pixels.preprocessing import Preprocessing

BOOKKEEPING = ".num_batches_tracked"  # batch norm's step count: no effect on any prediction
BIAS_INDEX = ".attention_bias_idxs"  # a constant that some files repeat
TIMM_NAMES = {f"levit_{conv}{size}" for conv in ("", "conv_") for size in ("128s", "128", "192", "256", "384")}
MUCH = 16  # times what the weights hold: no configuration that belongs to them asks for so much
HEADS = ("classifier", "classifier_distill")


@dataclass(frozen=True)
class Published:
    """A checkpoint as it was published, in Hugging Face's names."""

    name: str  # as it was asked for
    revision: str | None  # the hub commit it resolved to
    form: str  # "huggingface", "timm" or "authors"
    weights: Weights
    config: LevitConfig
    processor: dict[str, Any]  # every preprocessor_config.json value in force

    def changed(self, config: LevitConfig | None, changes: dict[str, Any]) -> "Published":
        """With another configuration, or other values of it. Raises TypeError for one that it does not have."""
        fields = {field.name for field in dataclasses.fields(LevitConfig)}
        if unknown := changes.keys() - fields:
            raise TypeError(f"from_pretrained has no option {', '.join(sorted(unknown))}, and LevitConfig no such field")
        return dataclasses.replace(self, config=(config or self.config).changed(**changes))

    def fill(self, model_class: type, ignore_mismatched_sizes: bool = False) -> tuple[Any, dict[str, Any]]:
        """A model of this class, and what of the file and of the model it has from elsewhere, as transformers reports it.

        The class's `heads` and its place for the backbone (`prefix`) say which weights it takes. Eval mode, float32.
        Strict, but that the batch norms' step counts may be absent, and that what has another size stays as it is drawn
        with `ignore_mismatched_sizes`. Raises CheckpointError.
        """
        model = model_class(self.config)
        if any(tensor.is_meta for tensor in model.parameters()):
            raise CheckpointError(
                f"checkpoint {self.name} cannot be loaded under torch's meta device, which keeps no numbers; leave its "
                f"context, or make the model without weights: {model_class.__name__}(config)"
            )
        unused = tuple(f"{head}." for head in HEADS if head not in model_class.heads)
        weights = {
            name.removeprefix(model_class.prefix): tensor
            for name, tensor in self.weights.items()
            if not name.startswith(unused)
        }
        mismatched = _take_misshapen(model, weights) if ignore_mismatched_sizes else set()
        drawn = {name for name, *_ in mismatched}
        check_fit(model, weights, f"checkpoint {self.name}", drawn)
        missing = model.state_dict().keys() - weights.keys() - drawn
        unexpected = {name for name in self.weights if name.startswith(unused)}
        model.load_state_dict(weights, strict=False)
        model.processor = self.processor
        info = {"missing_keys": missing, "unexpected_keys": unexpected, "mismatched_keys": mismatched, "error_msgs": []}
        return model.float().eval(), info


def read_published(checkpoint: str | Path, where: Where = Where()) -> Published:
    """A hub id, folder or file in any published form. Raises CheckpointError naming what is wrong."""
    files = find_files(checkpoint, where)
    weights, form = to_huggingface(read_tensors(files.weights))
    _refuse_other_timm(files.config)
    config = _config(files.config, weights)
    if not config.has_own_class_names and config.num_labels == 1000:
        config = config.with_labels(imagenet_names())
    weights = _without_constants(weights, config, files)
    return Published(str(checkpoint), files.revision, form, weights, config, _processor(files, config))


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


def _take_misshapen(model: nn.Module, weights: Weights) -> set[tuple]:
    """Leave the weights of another size than the model's out of `weights`; (name, their size, the model's) of each."""
    expected = model.state_dict()
    both = [name for name in expected if name in weights]
    shapes = {(name, tuple(weights[name].shape), tuple(expected[name].shape)) for name in both}
    taken = {one for one in shapes if one[1] != one[2]}
    for name, *_ in taken:
        del weights[name]
    return taken


def check_fit(model: nn.Module, weights: Weights, what: str, left_out: Collection[str] = ()) -> None:
    """Raises CheckpointError where `weights`, called `what`, are not just those of the model but for `left_out`."""
    expected = {name: tensor for name, tensor in model.state_dict().items() if name not in left_out}
    both = [name for name in expected if name in weights]
    misshapen = [name for name in both if weights[name].shape != expected[name].shape]
    problems = {
        "missing": [name for name in expected if name not in weights and not name.endswith(BOOKKEEPING)],
        "unknown": [name for name in weights if name not in expected],
        "misshapen": [f"{n} {tuple(weights[n].shape)} instead of {tuple(expected[n].shape)}" for n in misshapen],
        "not finite numbers": [name for name in both if not misshapen and not _usable(weights[name])],
    }
    if any(problems.values()):
        raise CheckpointError(f"{what} does not fit its LeViT: " + _listed(problems))


def refuse_other_sizes(published: Published) -> None:
    """Raises CheckpointError where the configuration asks for a model far larger than the weights, before it takes memory."""
    config, weights = published.config, published.weights
    largest = max((max(tensor.shape, default=1) for tensor in weights.values()), default=1)
    attention = zip(config.key_dim, config.num_attention_heads, config.attention_ratio, strict=True)
    sizes = {
        "hidden_sizes": max(config.hidden_sizes), "num_labels": config.num_labels, "kernel_size": config.kernel_size,
        "image_size": (config.image_size // config.patch_size) ** 2, "num_channels": config.num_channels,
        "key_dim": max(key * heads * (2 + ratio) for key, heads, ratio in attention),
        "mlp_ratio": max(ratio * width for ratio, width in zip(config.mlp_ratio, config.hidden_sizes, strict=True)),
        "down_ops": max((op[1] * op[2] * (2 + op[3]) for op in config.down_ops), default=1),
    }  # fmt: skip
    wrong = [name for name, size in sizes.items() if size > MUCH * largest]
    if sum(config.depths) > MUCH * len(weights):
        wrong.append("depths")
    if wrong:
        raise CheckpointError(
            f"checkpoint {published.name}: config.json and the weights do not belong together: {', '.join(wrong)} make a model "
            f"far larger than the {len(weights)} tensors there"
        )


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
    shape = config.image_size, config.num_channels
    if files.preprocessor is None and "architecture" in (files.config or {}):
        return Preprocessing.read_timm(files.config, *shape).fitting(*shape).to_dict()
    return Preprocessing.read(files.preprocessor, *shape).fitting(*shape).to_dict()


def imagenet_names() -> list[str]:
    """The 1,000 class names of ImageNet-1k in index order, as the published configurations have them."""
    text = resources.files("levit_batch.levit").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return text.splitlines()
