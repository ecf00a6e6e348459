"""Where a checkpoint's files are (hub, folder, file) and what its descriptions say; nothing here knows LeViT."""

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from levit_batch.errors import CheckpointError, LastingError, brief
from levit_batch.storage.hub import LOGIN, patient_hub, trouble

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
INDEX = "model.safetensors.index.json"  # which of several files holds which tensor
SHARDS = "model-*-of-*.safetensors"
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


@dataclass(frozen=True)
class Where:
    """Where a checkpoint's files are looked for, in transformers' names: those of a hub, but for `subfolder`."""

    revision: str | None = None
    subfolder: str = ""  # of the repository or folder
    cache_dir: str | Path | None = None
    token: str | bool | None = None
    local_files_only: bool = False
    force_download: bool = False

    @classmethod
    def split(cls, options: dict[str, Any]) -> tuple[Self, dict[str, Any]]:
        """These, and the other options."""
        own = {field.name for field in fields(cls)}
        where = cls(**{name: value for name, value in options.items() if name in own})
        return where, {name: value for name, value in options.items() if name not in own}


def find_files(checkpoint: str | Path, where: Where = Where()) -> CheckpointFiles:
    """Find `checkpoint`: an existing file or folder, else a repository on the hub (downloaded into its cache).

    A file is taken with the descriptions beside it when it has the name it has in a published folder
    (`model.safetensors`, `pytorch_model.bin`); any other file name is taken alone. Raises CheckpointError.
    """
    path = local_path(checkpoint)
    if path.is_file():
        described = path.name in (SAFETENSORS, PICKLE, INDEX)
        return _described(path, path.parent if described else None, None)
    if path.is_dir():
        folder = _inside(path, where)
        return _described(_weights_in(folder), folder, None)
    _check_hub_id(checkpoint, path)
    stored = fetch(checkpoint, where)
    folder = _inside(stored, where)
    return _described(_weights_in(folder), folder, stored.name)


def local_path(checkpoint: str | Path) -> Path:
    """Raises CheckpointError for what is no name of a checkpoint at all."""
    if not isinstance(checkpoint, str | Path) or not str(checkpoint):
        raise CheckpointError(f"a checkpoint is a hub id, a folder or a file, not {checkpoint!r}")
    return Path(checkpoint).expanduser()


def _check_hub_id(checkpoint: str | Path, path: Path) -> None:
    name = str(checkpoint)
    if path.suffix in WEIGHT_SUFFIXES or not HUB_ID.fullmatch(name) or name.startswith("."):
        raise CheckpointError(f"checkpoint {checkpoint}: there is no such file or folder, and it is not a hub id")


def _inside(folder: Path, where: Where) -> Path:
    inside = folder / where.subfolder
    if not inside.is_dir():
        raise CheckpointError(f"checkpoint {folder} has no subfolder {where.subfolder}")
    return inside


def fetch(repo_id: str | Path, where: Where = Where(), folder: str | Path | None = None) -> Path:
    """Download a hub repository's weights and descriptions, into the hub cache or `folder`, and return where they are.

    Safetensors are preferred over a pickle; `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` count as for every Hugging
    Face tool. In the cache, the returned folder is named after the commit. Raises CheckpointError.
    """
    stored = _download(str(repo_id), where, folder, [*DESCRIPTIONS, SAFETENSORS, INDEX, SHARDS])
    if not any((stored / where.subfolder / name).exists() for name in (SAFETENSORS, INDEX)):
        stored = _download(str(repo_id), where, folder, [*DESCRIPTIONS, PICKLE, "*.pth"])
    return stored


def read_descriptions(checkpoint: str | Path, where: Where = Where()) -> tuple[dict | None, dict | None]:
    """(`config.json`, `preprocessor_config.json`) of a folder or hub repository, without its weights; None if missing.

    Raises CheckpointError.
    """
    folder = local_path(checkpoint)
    if not folder.is_dir():
        _check_hub_id(checkpoint, folder)
        folder = _download(str(checkpoint), where, None, DESCRIPTIONS)
    folder = _inside(folder, where)
    config, preprocessor = (read_json(folder / name) for name in DESCRIPTIONS)
    return config, preprocessor


def read_config(checkpoint: str | Path, where: Where = Where()) -> dict[str, Any]:
    """`config.json` of a folder or hub repository, or the JSON file itself. Raises CheckpointError, also without one."""
    path = local_path(checkpoint)
    config = read_json(path) if path.is_file() else read_descriptions(checkpoint, where)[0]
    if config is None:
        raise CheckpointError(f"checkpoint {checkpoint} has no config.json")
    return config


def _download(repo_id: str, where: Where, folder: str | Path | None, names: list[str]) -> Path:
    patient_hub()
    options = asdict(where) | {"local_dir": folder, "allow_patterns": [str(Path(where.subfolder, name)) for name in names]}
    del options["subfolder"]
    try:
        try:
            return Path(snapshot_download(repo_id, **options))
        except LastingError:  # what is in the cache will do
            if folder:
                raise
            return Path(snapshot_download(repo_id, **options | {"local_files_only": True}))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        at = f"checkpoint {repo_id}" + (f" at revision {where.revision}" if where.revision else "")
        raise CheckpointError(at + _why_not(error, repo_id, where)) from error


def _why_not(error: Exception, repo_id: str, where: Where) -> str:
    page, what = f"{constants.ENDPOINT}/{repo_id}", trouble(error)
    if what == "gated":
        return f" is gated: accept the conditions at {page}, then {LOGIN}"
    if what == "revision":
        return f": the repository has no such revision; see {page}/commits/main"
    if what in ("offline", "silent", "uncached"):
        why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else f"{constants.ENDPOINT} cannot be reached"
        why = "local_files_only is set" if where.local_files_only else why
        return (
            f": there is no such file or folder in {Path.cwd()}; as a hub id it is not in the hub cache, and {why}: correct the "
            f"path, or fetch it where there is a network with `levit-batch models --fetch {repo_id} DIR` and give DIR"
        )
    if what == "missing":
        return (
            f": there is no such file, folder or hub repository; if {page} is private or gated, accept its conditions "
            f"there, then {LOGIN}"
        )
    return f": the download from {constants.ENDPOINT} failed: {brief(error)}"


def _weights_in(folder: Path) -> Path:
    for name in (SAFETENSORS, INDEX, PICKLE):
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
    config, preprocessor = (read_json(folder / name) if folder else None for name in DESCRIPTIONS)
    return CheckpointFiles(weights, config, preprocessor, revision)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None when there is no such file. Raises CheckpointError."""
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"checkpoint file {path} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"checkpoint file {path} must hold a JSON object, not a {type(values).__name__}")
    return values
