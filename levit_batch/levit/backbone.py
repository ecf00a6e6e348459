"""Whether the embeddings of a table are those that a checkpoint's heads are made for."""

from typing import Any

from levit_batch.errors import CheckpointError, LevitBatchError, brief
from levit_batch.levit.checkpoint import Checkpoint, load_checkpoint


def check_backbone(there: dict[str, Any], heads: Checkpoint, table: str) -> None:
    """Raises CheckpointError unless the embeddings of the table, whose job.json is `there`, are those of this checkpoint."""
    backbone = there.get("backbone") or (heads.backbone if there["digest"] == heads.digest else _backbone(there, table))
    if backbone != heads.backbone:
        raise CheckpointError(
            f"checkpoint {heads.name}: its backbone ({heads.backbone[:16]}) is not the one that made the embeddings of {table} "
            f"({backbone[:16]}, of {there['config']['model']['checkpoint']}); train heads with train.freeze=backbone, or `run` it"
        )
    if differing := [key for key, value in there["processor"].items() if heads.processor.get(key) != value]:
        raise CheckpointError(
            f"checkpoint {heads.name}: its preprocessing is not that of {table} ({', '.join(differing)}): it would see other "
            "pixels than those that the embeddings are of"
        )


def _backbone(there: dict[str, Any], table: str) -> str:
    """The backbone's digest of a table that was labelled before job.json had it: its checkpoint tells, if it is still there."""
    name = there["config"]["model"]["checkpoint"]
    try:
        made = load_checkpoint(name, there.get("model_revision"))
    except (LevitBatchError, OSError) as e:
        raise CheckpointError(
            f"{table}: its job.json does not say which backbone made its embeddings, and its checkpoint {name} cannot be asked: "
            f"{brief(e)}; run its job once more, which changes no row"
        ) from None
    if made.digest != there["digest"]:
        raise CheckpointError(
            f"{table}: its job.json does not say which backbone made its embeddings, and its checkpoint {name} has other weights "
            "today; put those back, or label it again"
        )
    return made.backbone
