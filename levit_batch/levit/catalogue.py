"""What models there are, what one checkpoint is, and fetching one for machines without a network."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from levit_batch.errors import CheckpointError
from levit_batch.levit.config import LevitConfig
from levit_batch.levit.variants import VARIANTS


@dataclass(frozen=True)
class Variant:
    """One published size; macs are multiply-adds an image (the paper's FLOPs)."""

    name: str
    hub_id: str
    parameters: int
    macs: int
    embedding: int
    published_top1: float


# Top-1 in percent on ImageNet-1k, as published with the weights (arXiv 2104.01136, table 4), is not measured here; the other
# figures are `cost`'s, written down so that the list needs no torch.
PUBLISHED = [
    Variant("128S", "facebook/levit-128S", 7_777_058, 305_108_946, 384, 76.6),
    Variant("128", "facebook/levit-128", 9_213_936, 406_114_880, 384, 78.6),
    Variant("192", "facebook/levit-192", 10_947_069, 657_601_916, 384, 80.0),
    Variant("256", "facebook/levit-256", 18_893_876, 1_128_024_056, 512, 81.6),
    Variant("384", "facebook/levit-384", 39_128_836, 2_352_935_380, 768, 82.6),
]


def describe(checkpoint: str, revision: str | None = None) -> dict[str, Any]:
    """Load `checkpoint` and say what it is. Raises CheckpointError when it is not a LeViT that can be used."""
    from levit_batch.levit.checkpoint import load_checkpoint
    from levit_batch.levit.cost import cost

    loaded = load_checkpoint(checkpoint, revision)
    heads = len(loaded.model.heads)
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
    from levit_batch.levit.checkpoint_files import Where
    from levit_batch.levit.checkpoint_files import fetch as download

    target = Path(folder or checkpoint.split("/")[-1])
    if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not _was_fetched(target))):
        raise CheckpointError(f"{target} exists and was not made by --fetch; give another folder")
    download(checkpoint, Where(revision), target)
    return target, describe(str(target))


def _was_fetched(folder: Path) -> bool:
    return (folder / ".cache" / "huggingface").is_dir()


def as_data() -> list[dict[str, Any]]:
    return [asdict(one) for one in PUBLISHED]
