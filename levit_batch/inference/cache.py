"""Exported graphs on disk, so that only a model's first job waits seconds for its export."""

import gc
import hashlib
import importlib.metadata
import inspect
import os
import shutil
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np
from torch import nn

from levit_batch.inference.backends.choose import Exported, Runtime, backend_module
from levit_batch.inference.fold import fold

SUMS = "sha256"
KEPT = 10  # graphs, of 30 to 160 MB each: those that were used last


def exported(name: str, folded: nn.Module, runtime: Runtime) -> Exported | None:
    """The export of `folded` for the backend `name`: from the cache where it is there and intact, else made and kept."""
    module = backend_module(name)
    if not module.EXTRA:
        return None
    folder = cache_folder() / f"{name}-{_key(name, folded, runtime)}"
    graph = _read(folder)
    if graph is None:
        # Exporters warn of their own future, about which nothing can be done.
        with warnings.catch_warnings(action="ignore"):
            graph = module.export(folded, runtime)
        gc.collect()  # an export leaves its graphs behind in cycles
        with suppress(OSError):  # a cache that cannot be written only costs time
            _write(folder, graph)
            _prune(folder.parent)
    with suppress(OSError):
        os.utime(folder)  # used now
    return graph


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "levit-batch"


def _key(name: str, folded: nn.Module, runtime: Runtime) -> str:
    """A hash of all that shapes the graph: weights with normalisation and heads folded in, code, versions and batch."""
    sha = hashlib.sha256(repr((folded.config, runtime)).encode())
    for package in ("torch", *backend_module(name).PACKAGES):
        sha.update(importlib.metadata.version(package).encode())
    for code in (fold, backend_module(name)):
        sha.update(inspect.getsource(code).encode())
    for key, tensor in sorted(folded.state_dict().items()):
        sha.update(key.encode() + tensor.contiguous().numpy().tobytes())
    return sha.hexdigest()[:32]


def _read(folder: Path) -> Exported | None:
    try:
        sums = dict(line.split() for line in (folder / SUMS).read_text().splitlines())
        files = {name: np.fromfile(folder / name, np.uint8) for name in sums}
    except (OSError, ValueError):
        return None
    return files if files and all(_sum(files[name]) == written for name, written in sums.items()) else None


def _write(folder: Path, files: Exported) -> None:
    """A whole folder in one rename; where another process was faster, or the old one is damaged, ours takes its place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".new-"))
    try:
        for name, data in files.items():
            data.tofile(made / name)
        (made / SUMS).write_text("".join(f"{name} {_sum(data)}\n" for name, data in files.items()))
        shutil.rmtree(folder, ignore_errors=True)
        made.rename(folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _prune(cache: Path) -> None:
    """Remove all but the `KEPT` graphs that were used last. A process that is reading one finds it damaged, and exports anew."""
    graphs = sorted((folder.stat().st_mtime, folder) for folder in cache.glob("[!.]*/"))
    for _, folder in graphs[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)
    for folder in cache.glob(".new-*/"):  # of processes that were killed while they wrote it
        if time.time() - folder.stat().st_mtime > 3600:
            shutil.rmtree(folder, ignore_errors=True)


def _sum(data: np.ndarray) -> str:
    return hashlib.sha256(data).hexdigest()
