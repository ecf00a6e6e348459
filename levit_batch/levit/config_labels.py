"""The three fields that say what the classes are called."""

from typing import Any

from levit_batch.errors import CheckpointError

LABELS = ("id2label", "label2id", "num_labels")


def labels_of(id2label: dict | None, label2id: dict | None, num_labels: int | None) -> dict[str, Any]:
    """The three label fields, agreeing with each other."""
    if id2label is not None:
        id2label = {int(index): str(name) for index, name in id2label.items()}
    elif label2id is not None:
        id2label = {int(index): str(name) for name, index in label2id.items()}
    else:
        id2label = {index: f"LABEL_{index}" for index in range(2 if num_labels is None else num_labels)}
    if sorted(id2label) != list(range(len(id2label))):
        raise CheckpointError(
            f"LeViT configuration: id2label must number its classes 0..{len(id2label) - 1} without gaps"
        )
    if num_labels is not None and num_labels != len(id2label):
        raise CheckpointError(
            f"LeViT configuration: num_labels is {num_labels}, id2label names {len(id2label)} classes"
        )
    id2label = dict(sorted(id2label.items()))
    # Two classes of ImageNet share the name "crane": the last index wins, as in the published files.
    return {
        "id2label": id2label,
        "label2id": {name: index for index, name in id2label.items()},
        "num_labels": len(id2label),
    }
