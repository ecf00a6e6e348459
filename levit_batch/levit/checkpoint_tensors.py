"""The tensors of a checkpoint's files, whatever they are of; nothing here knows LeViT."""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from levit_batch.errors import CheckpointError, brief
from levit_batch.levit.checkpoint_files import read_json


def read_tensors(weights: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors file, of all files that an index names, or of a pickle (bare, or under `model`).

    A pickle may not run code. Raises CheckpointError when a file is damaged, wants to run code or holds anything but
    tensors.
    """
    if weights.name.endswith(".index.json"):
        return _read_shards(weights)
    try:
        if weights.suffix == ".safetensors":
            return load_file(weights)
        content = torch.load(weights, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"checkpoint {weights} is refused: it is damaged, or loading it would run code of its author's choice; "
            "convert it to safetensors where you trust it"
        ) from error
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"checkpoint {weights} cannot be read: {brief(error)}") from error
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        content = content["model"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"checkpoint {weights} does not hold named tensors, bare or under the key `model`")
    return content


def _read_shards(index: Path) -> dict[str, Tensor]:
    places = (read_json(index) or {}).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(p, str) and Path(p).name == p for p in places.values()):
        raise CheckpointError(f"checkpoint {index} must map each tensor to a file beside it (weight_map)")
    files = {name: read_tensors(index.parent / name) for name in sorted(set(places.values()))}
    if lost := [name for name, place in places.items() if name not in files[place]]:
        raise CheckpointError(f"checkpoint {index}: {places[lost[0]]} lacks {lost[0]} ({len(lost)} tensors in all)")
    return {name: files[place][name] for name, place in places.items()}
