"""Where a checkpoint's files are (hub, folder, file) and what tensors they hold; nothing here knows LeViT."""

import json
import pickle
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from levit_batch.errors import CheckpointError, LastingError, brief
from levit_batch.storage.hub import LOGIN, patient_hub, trouble

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".pth", ".pt"}
DESCRIPTIONS = ["config.json", "preprocessor_config.json"]
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class CheckpointFiles:
    """One checkpoint's files on this machine; a description that is not there is None."""

    weights: Path
    config: dict[str, Any] | None
    preprocessor: dict[str, Any] | None
    revision: str | None


def find_files(checkpoint: str, revision: str | None = None) -> CheckpointFiles:
    """Find `checkpoint`: an existing file or folder, else a repository on the hub (downloaded into its cache).

    A file is taken with the descriptions beside it when it has the name it has in a published folder
    (`model.safetensors`, `pytorch_model.bin`); any other file name is taken alone. Raises CheckpointError.
    """
    path = Path(checkpoint).expanduser()
    if path.is_file():
        described = path.name in (SAFETENSORS, PICKLE)
        return _described(path, path.parent if described else None, None)
    if path.is_dir():
        return _described(_weights_in(path), path, None)
    if path.suffix in WEIGHT_SUFFIXES or not HUB_ID.fullmatch(checkpoint) or checkpoint.startswith("."):
        raise CheckpointError(f"checkpoint {checkpoint}: there is no such file or folder, and it is not a hub id")
    folder = fetch(checkpoint, revision)
    return _described(_weights_in(folder), folder, folder.name)


def fetch(repo_id: str, revision: str | None = None, folder: str | Path | None = None) -> Path:
    """Download a hub repository's weights and descriptions, into the hub cache or `folder`, and return where they are.

    Safetensors are preferred over a pickle; `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` count as for every Hugging
    Face tool. In the cache, the returned folder is named after the commit. Raises CheckpointError.
    """
    stored = _download(repo_id, revision, folder, [*DESCRIPTIONS, SAFETENSORS])
    if not (stored / SAFETENSORS).exists():
        stored = _download(repo_id, revision, folder, [*DESCRIPTIONS, PICKLE, "*.pth"])
    return stored


def read_descriptions(checkpoint: str, revision: str | None = None) -> tuple[dict | None, dict | None]:
    """(`config.json`, `preprocessor_config.json`) of a folder or hub repository, without its weights; None if missing.

    Raises CheckpointError.
    """
    folder = Path(checkpoint).expanduser()
    if not folder.is_dir():
        folder = _download(checkpoint, revision, None, DESCRIPTIONS)
    config, preprocessor = (_read_json(folder / name) for name in DESCRIPTIONS)
    return config, preprocessor


def _download(repo_id: str, revision: str | None, folder: str | Path | None, patterns: list[str]) -> Path:
    patient_hub()
    wanted = partial(snapshot_download, repo_id, revision=revision, local_dir=folder, allow_patterns=patterns)
    try:
        try:
            return Path(wanted())
        except LastingError:  # what is in the cache will do
            if folder:
                raise
            return Path(wanted(local_files_only=True))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        where = f"checkpoint {repo_id}" + (f" at revision {revision}" if revision else "")
        raise CheckpointError(where + _why_not(error, repo_id)) from error


def _why_not(error: Exception, repo_id: str) -> str:
    page, what = f"{constants.ENDPOINT}/{repo_id}", trouble(error)
    if what == "gated":
        return f" is gated: accept the conditions at {page}, then {LOGIN}"
    if what == "revision":
        return f": the repository has no such revision; see {page}/commits/main"
    if what in ("offline", "silent", "uncached"):
        why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"{constants.ENDPOINT} cannot be reached"
        return (
            f" is not in the hub cache, and {why}; fetch it where there is a network with "
            f"`levit-batch models --fetch {repo_id} DIR` and give DIR as the checkpoint"
        )
    if what == "missing":
        return (
            f": there is no such file, folder or hub repository; if {page} is private or gated, accept its conditions "
            f"there, then {LOGIN}"
        )
    return f": the download from {constants.ENDPOINT} failed: {brief(error)}"


def _weights_in(folder: Path) -> Path:
    for name in (SAFETENSORS, PICKLE):
        if (folder / name).exists():
            return folder / name
    others = sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES)
    if len(others) != 1:
        names = ", ".join(path.name for path in others) or "none"
        raise CheckpointError(
            f"checkpoint {folder} needs {SAFETENSORS}, {PICKLE} or exactly one other weights file "
            f"({', '.join(sorted(WEIGHT_SUFFIXES))}); found: {names}"
        )
    return others[0]


def _described(weights: Path, folder: Path | None, revision: str | None) -> CheckpointFiles:
    config, preprocessor = (_read_json(folder / name) if folder else None for name in DESCRIPTIONS)
    return CheckpointFiles(weights, config, preprocessor, revision)


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint file {path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"checkpoint file {path} must hold a JSON object, not a {type(values).__name__}")
    return values


def read_tensors(weights: Path) -> dict[str, Tensor]:
    """The named tensors of a safetensors file or a pickle (bare, or under `model`); the pickle may not run code.

    Raises CheckpointError when the file is damaged, wants to run code or holds anything but tensors.
    """
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
