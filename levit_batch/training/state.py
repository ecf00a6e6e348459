"""What a training needs to go on after it was killed, as one file that is either whole or not there."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from levit_batch.errors import OutputError
from levit_batch.storage.place import place

NAME = "state.pt"


@dataclass
class State:
    """Where a training is. All of it is plain values and tensors.

    consumed: for each worker, how many samples of the running epoch it has used.
    sums: loss, right answers and images of the running epoch so far, over all workers.
    """

    epoch: int = 0  # epochs completed
    step: int = 0  # optimiser steps taken, over all epochs
    consumed: list[int] = field(default_factory=list)
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    skipped: list[dict[str, int]] = field(default_factory=list)
    seconds: float = 0.0  # spent in the running epoch so far
    history: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None  # the entry of `history` whose weights are kept
    best_weights: dict[str, torch.Tensor] | None = None
    since_best: int = 0


def save_state(folder: Path, state: State, model: dict, optimizer: dict, random: list[torch.Tensor]) -> None:
    """Replace the state in `folder`; a kill at any moment leaves the old one or the new one."""
    buffer = io.BytesIO()
    values = {"progress": vars(state), "model": model, "optimizer": optimizer, "random": random}
    torch.save(values, buffer)
    try:
        place(str(folder / NAME)).write_bytes(buffer.getbuffer())
    except OSError as e:
        raise OutputError(f"output.path: {folder / NAME} cannot be written: {e}") from None


def load_state(folder: Path) -> dict[str, Any] | None:
    """The state in `folder`, with `progress` as a State; None where there is none."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        return saved | {"progress": State(**saved["progress"])}
    except Exception as e:
        raise OutputError(f"{path}: not a training state that can be read ({e}); start afresh with --overwrite") from e
