"""The folder that a fine-tuning writes: one training at a time, the same one to the end, whole files only.

config.json  preprocessor_config.json  model.safetensors    the checkpoint, when the training is finished
history.json  learning_curve.svg                            how it went; history.json comes last: it says "finished"
_training/                                                  the state of an unfinished training
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from levit_batch.errors import OutputError
from levit_batch.storage.place import place
from levit_batch.storage.url import scheme
from levit_batch.table.lock import Claim, LockedError, locked
from levit_batch.table.output import left_by_dead
from levit_batch.training.state import NAME as STATE

WORK = "_training"
CHECKPOINT = ("preprocessor_config.json", "config.json", "model.safetensors")
RECORDS = ("history.json", "learning_curve.svg")


def training_folder(path: str) -> Path:
    """`output.path` as a folder of a disk. Raises OutputError for an object store."""
    if scheme(path) not in ("", "file"):
        raise OutputError(
            f"output.path: {path}: a training writes to a disk; name a folder, and upload it when it is done"
        )
    return Path(path.removeprefix("file://")).expanduser().resolve()


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[Claim]:
    """Hold `folder`, with a work folder in it, while training."""
    with contextlib.ExitStack() as stack:
        try:
            claim = stack.enter_context(locked(place(str(folder))))
        except LockedError:
            raise LockedError(f"output.path: another training is writing to {folder}; wait for it, or stop it") from None
        stack.callback(_tidy, folder)
        at = place(str(folder))
        for info in left_by_dead([*at.list(recursive=False), *at.join("_lock").list()]):
            os.unlink(info.path)
        (folder / WORK).mkdir(exist_ok=True)
        yield claim


def _tidy(folder: Path) -> None:
    """Leave nothing behind a training that saved no state yet, or is finished."""
    if not _has_begun(folder):
        shutil.rmtree(folder / WORK)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _has_begun(folder: Path) -> bool:
    """Whether there is an unfinished training to go on with: without a state it has trained nothing."""
    return all((folder / WORK / name).exists() for name in ("values.json", STATE))


def delete_training(folder: Path) -> None:
    """Delete what a training wrote here, and nothing else."""
    for name in (*CHECKPOINT, *RECORDS):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / WORK)
    (folder / WORK).mkdir()


def finished(folder: Path, values: dict[str, Any]) -> dict[str, Any] | None:
    """`history.json` when this training is finished; None to begin or to go on.

    Raises OutputError, with the differences, when the folder holds another one.
    """
    begun = read_json(folder / WORK / "values.json") if _has_begun(folder) else None
    done = read_json(folder / "history.json")
    there = begun or (done or {}).get("values")
    if there is None:
        if any((folder / name).exists() for name in CHECKPOINT):
            raise OutputError(f"output.path: {folder} holds a checkpoint that is not a training's; use another folder")
        return None
    if differing := sorted(key for key in there.keys() | values.keys() if there.get(key) != values.get(key)):
        words = "; ".join(f"{key} was {there.get(key)!r} and is {values.get(key)!r}" for key in differing[:5])
        raise OutputError(
            f"output.path: {folder} holds another training: {words}; use another output.path, or --overwrite"
        )
    return None if begun else done


def save_checkpoint(student: Any, work: Path) -> None:
    """Write the trained student below `work`, from where `publish` takes it."""
    folder = work / "checkpoint"
    student.save_pretrained(folder)
    for name in CHECKPOINT:
        (folder / name).chmod(0o666 & ~_umask())  # safetensors makes its file unreadable for others


def publish(folder: Path, record: dict[str, Any], curve: bytes) -> None:
    """Move the checkpoint into its place, write the records, and drop the state."""
    for name in CHECKPOINT:
        os.replace(folder / WORK / "checkpoint" / name, folder / name)
    place(str(folder / "learning_curve.svg")).write_bytes(curve)
    write_json(folder / "history.json", record)
    (folder / WORK / "values.json").unlink()


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as e:
        raise OutputError(f"{path}: cannot be read: {e}; start afresh with --overwrite") from None


def write_json(path: Path, value: dict[str, Any]) -> None:
    place(str(path)).write_bytes((json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
