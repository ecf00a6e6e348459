"""The published forms of a LeViT's weights: every form's names to Hugging Face's, and the shape the tensors imply."""

import math
import re
from collections.abc import Iterable

from torch import Tensor

from levit_batch.errors import CheckpointError
from levit_batch.levit.config import LevitConfig

Weights = dict[str, Tensor]

# A name's parts in timm (`linear`, `bn`) and with the authors (`c`, `l`, `bn`), after the part that says where it is.
_PARTS = {"c": "linear", "l": "linear", "linear": "linear", "bn": "batch_norm"}
_TIMM_LAYERS = {"qkv": "queries_keys_values", "kv": "keys_values", "q.ln": "queries", "proj.ln": "projection"}
_TIMM_LAYERS |= {"ln1": "linear_up", "ln2": "linear_down"}
_AUTHORS_LAYERS = {"qkv": "queries_keys_values", "kv": "keys_values", "q.1": "queries", "proj.1": "projection"}
_AUTHORS_LAYERS |= {"0": "linear_up", "2": "linear_down"}
_HEADS = {"head": "classifier", "head_dist": "classifier_distill"}


def to_huggingface(tensors: Weights) -> tuple[Weights, str]:
    """Rename to Hugging Face's names and flatten 1x1 convolutions; returns the weights and the form they were in.

    Names that no form knows keep their own name, so that a strict load reports them. Raises CheckpointError when
    no form fits.
    """
    if "stem.conv1.linear.weight" in tensors:
        return _flattened(_renamed(tensors, _timm_names(tensors))), "timm"
    if "patch_embed.0.c.weight" in tensors:
        return _flattened(_renamed(tensors, _authors_names(tensors))), "authors"
    if any(name.startswith("levit.patch_embeddings.") for name in tensors):
        return tensors, "huggingface"
    if any(name.startswith("patch_embeddings.") for name in tensors):  # a backbone that was saved alone
        return {f"levit.{name}": tensor for name, tensor in tensors.items()}, "huggingface"
    some = ", ".join(list(tensors)[:3]) or "none"
    raise CheckpointError(
        f"the weights are not a LeViT's in Hugging Face's, timm's or the authors' form; tensors: {some}"
    )


def _renamed(tensors: Weights, places: dict[str, str]) -> Weights:
    """Replace each name's longest known place, and the parts after it."""
    renamed = {}
    for name, tensor in tensors.items():
        place = next((p for p in _prefixes(name) if p in places), None)
        parts = name[len(place) + 1 :].split(".") if place else []
        if place is None or (len(parts) == 2 and parts[0] not in _PARTS):
            renamed[name] = tensor
            continue
        if len(parts) == 2:
            parts[0] = "convolution" if tensor.ndim == 4 and "embedding_layer" in places[place] else _PARTS[parts[0]]
        renamed[".".join([places[place], *parts])] = tensor
    return renamed


def _prefixes(name: str) -> Iterable[str]:
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1))


def _timm_names(tensors: Weights) -> dict[str, str]:
    """Place in timm -> place in Hugging Face. timm's stage begins with the way down that ours ends with."""
    depths = _timm_depths(tensors)
    places = {f"stem.conv{i}": f"levit.patch_embeddings.embedding_layer_{i}" for i in range(1, 5)} | _HEADS
    for stage, depth in enumerate(depths):
        at = f"levit.encoder.stages.{stage}.layers"
        for block in range(depth):
            inside = f"stages.{stage}.blocks.{block}"
            places |= _layer_places(f"{inside}.attn", f"{at}.{2 * block}.module", _TIMM_LAYERS)
            places |= _layer_places(f"{inside}.mlp", f"{at}.{2 * block + 1}.module", _TIMM_LAYERS)
        down = f"stages.{stage + 1}.downsample"
        places |= _layer_places(f"{down}.attn_downsample", f"{at}.{2 * depth}", _TIMM_LAYERS)
        places |= _layer_places(f"{down}.mlp", f"{at}.{2 * depth + 1}.module", _TIMM_LAYERS)
    return places


def _timm_depths(tensors: Weights) -> list[int]:
    matches = (re.match(r"stages\.(\d+)\.blocks\.(\d+)\.", name) for name in tensors)
    blocks = {(int(match[1]), int(match[2])) for match in matches if match}
    stages = 1 + max((stage for stage, _ in blocks), default=-1)
    return [sum(1 for stage, _ in blocks if stage == index) for index in range(stages)]


def _authors_names(tensors: Weights) -> dict[str, str]:
    """Place with the authors -> place in Hugging Face. Theirs is one list; a stage ends after its way down."""
    places = {f"patch_embed.{2 * i}": f"levit.patch_embeddings.embedding_layer_{i + 1}" for i in range(4)} | _HEADS
    count = 1 + max((int(m[1]) for name in tensors if (m := re.match(r"blocks\.(\d+)\.", name))), default=-1)
    stage, first, ends = 0, 0, False
    for block in range(count):
        at = f"levit.encoder.stages.{stage}.layers.{block - first}"
        if f"blocks.{block}.kv.c.weight" in tensors:
            places |= _layer_places(f"blocks.{block}", at, _AUTHORS_LAYERS)
            ends = True  # after the MLP that follows
            continue
        places |= _layer_places(f"blocks.{block}.m", f"{at}.module", _AUTHORS_LAYERS)
        if ends:
            stage, first, ends = stage + 1, block + 1, False
    return places


def _layer_places(source: str, target: str, layers: dict[str, str]) -> dict[str, str]:
    return {source: target} | {f"{source}.{theirs}": f"{target}.{ours}" for theirs, ours in layers.items()}


def _flattened(weights: Weights) -> Weights:
    """1x1 convolutions of the attention and MLP (levit_conv_*) as the linear layers they are."""
    return {
        name: tensor[:, :, 0, 0] if name.endswith(".linear.weight") and tensor.shape[2:] == (1, 1) else tensor
        for name, tensor in weights.items()
    }


def infer_config(weights: Weights) -> LevitConfig:
    """The configuration that weights with Hugging Face's names imply (3x3 stem of stride 2).

    Raises CheckpointError when they do not have a LeViT's parts.
    """
    try:
        return _infer(weights)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f"the weights do not have the parts of a LeViT: {error} is missing") from error


def _infer(weights: Weights) -> LevitConfig:
    stages = [_stage_layers(weights, index) for index in range(_count(weights, r"levit\.encoder\.stages\.(\d+)\."))]
    attentions = [stage[0] for stage in stages]
    shapes = [_attention_shape(weights, f"{at}.module", "queries_keys_values") for at in attentions]
    downs = [at for stage in stages for at in stage if f"{at}.keys_values.linear.weight" in weights]
    side = math.isqrt(weights[f"{attentions[0]}.module.attention_biases"].shape[1])
    return LevitConfig(
        image_size=side * 16,
        num_channels=weights["levit.patch_embeddings.embedding_layer_1.convolution.weight"].shape[1],
        hidden_sizes=[weights[f"{at}.module.queries_keys_values.linear.weight"].shape[1] for at in attentions],
        num_attention_heads=[heads for heads, _, _ in shapes],
        key_dim=[key_dim for _, key_dim, _ in shapes],
        attention_ratio=[ratio for _, _, ratio in shapes],
        depths=[sum(f"{at}.module.attention_biases" in weights for at in stage) for stage in stages],
        mlp_ratio=[_mlp_ratio(weights, stage[1]) if len(stage) > 1 else 0 for stage in stages],
        down_ops=[_down_op(weights, at) for at in downs],
        num_labels=len(weights["classifier.linear.bias"]) if "classifier.linear.bias" in weights else None,
    )


def _count(weights: Weights, pattern: str) -> int:
    return 1 + max((int(m[1]) for name in weights if (m := re.match(pattern, name))), default=-1)


def _stage_layers(weights: Weights, stage: int) -> list[str]:
    at = f"levit.encoder.stages.{stage}.layers"
    return [f"{at}.{index}" for index in range(_count(weights, re.escape(at) + r"\.(\d+)\."))]


def _attention_shape(weights: Weights, at: str, mixed: str) -> tuple[int, int, int]:
    """Heads, key width, attention ratio: `mixed` makes heads * (2 or 1 keys + value), the projection takes values."""
    heads = weights[f"{at}.attention_biases"].shape[0]
    values = weights[f"{at}.projection.linear.weight"].shape[1] // heads
    keys = weights[f"{at}.{mixed}.linear.weight"].shape[0] // heads - values
    key_dim = keys // 2 if mixed == "queries_keys_values" else keys
    return heads, key_dim, values // key_dim


def _mlp_ratio(weights: Weights, at: str) -> int:
    name = f"{at}.module.linear_up.linear.weight"
    return weights[name].shape[0] // weights[name].shape[1] if name in weights else 0


def _down_op(weights: Weights, at: str) -> tuple:
    heads, key_dim, ratio = _attention_shape(weights, at, "keys_values")
    stage, layer = at.rsplit(".", 1)
    return ("Subsample", key_dim, heads, ratio, _mlp_ratio(weights, f"{stage}.{int(layer) + 1}"), 2)
