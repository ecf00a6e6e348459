"""What models there are, what one checkpoint is, and fetching one for machines without a network."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from levit_batch.errors import CheckpointError
from levit_batch.levit.config import VARIANTS, LevitConfig
from levit_batch.levit.cost import cost

# ImageNet-1k top-1 in percent, as published with the weights (arXiv 2104.01136, table 4); not measured here.
PUBLISHED_TOP1 = {"128S": 76.6, "128": 78.6, "192": 80.0, "256": 81.6, "384": 82.6}


@dataclass(frozen=True)
class Variant:
    """One published size; macs are multiply-adds an image (the paper's FLOPs)."""

    name: str
    hub_id: str
    parameters: int
    macs: int
    embedding: int
    published_top1: float


def variants() -> list[Variant]:
    """The five published sizes, figures computed from their configurations."""
    return [
        Variant(name, f"facebook/levit-{name}", figures.parameters, figures.macs, config.embedding_size, top1)
        for name, config in VARIANTS.items()
        for figures, top1 in [(cost(config), PUBLISHED_TOP1[name])]
    ]


def describe(checkpoint: str, revision: str | None = None) -> dict[str, Any]:
    """Load `checkpoint` and say what it is. Raises CheckpointError when it is not a LeViT that can be used."""
    from levit_batch.levit.checkpoint import load_checkpoint

    loaded = load_checkpoint(checkpoint, revision)
    heads = 2 if hasattr(loaded.model, "classifier_distill") else 1
    figures = cost(loaded.config, heads)
    return {
        "checkpoint": loaded.name,
        "revision": loaded.revision,
        "form": loaded.form,
        "variant": variant_of(loaded.config),
        "class": type(loaded.model).__name__,
        "heads": heads,
        "classes": loaded.config.num_labels,
        "first_classes": loaded.class_names[:5],
        "image_size": loaded.config.image_size,
        "embedding": loaded.config.embedding_size,
        "parameters": figures.parameters,
        "macs": figures.macs,
        "preprocessing": loaded.processor,
        "digest": loaded.digest,
    }


def variant_of(config: LevitConfig) -> str:
    """The published size with this backbone at any image size and classes, else its widths and depths."""
    for name, known in VARIANTS.items():
        if _shape(config) == _shape(known):
            return name
    return f"custom (hidden_sizes {list(config.hidden_sizes)}, depths {list(config.depths)})"


def _shape(config: LevitConfig) -> tuple:
    return (
        *(config.hidden_sizes, config.num_attention_heads, config.depths, config.key_dim),
        *(config.mlp_ratio, config.attention_ratio, config.down_ops),
    )


def fetch(checkpoint: str, folder: str | None = None, revision: str | None = None) -> tuple[Path, dict[str, Any]]:
    """Store a hub repository's weights and descriptions in `folder` (default: its name here), and try them.

    Returns the folder and `describe` of it. Raises CheckpointError, also when the folder holds another checkpoint.
    """
    from levit_batch.levit.checkpoint_files import fetch as download

    target = Path(folder or checkpoint.split("/")[-1])
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not _was_fetched(target))):
        raise CheckpointError(f"{target} exists and was not made by --fetch; give another folder")
    download(checkpoint, revision, target)
    return target, describe(str(target))


def _was_fetched(folder: Path) -> bool:
    return (folder / ".cache" / "huggingface").is_dir()


def as_data(variants: list[Variant]) -> list[dict[str, Any]]:
    return [asdict(one) for one in variants]
