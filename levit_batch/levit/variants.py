"""The five published sizes. No torch here: the command line lists them without loading it."""

from levit_batch.levit.config import LevitConfig


def _variant(hidden_sizes, heads, depths, key_dim, drop_path_rate=0) -> LevitConfig:
    return LevitConfig(
        hidden_sizes=hidden_sizes,
        num_attention_heads=heads,
        depths=depths,
        key_dim=(key_dim,) * 3,
        drop_path_rate=drop_path_rate,
        num_labels=1000,
    )


# Table 1 of "LeViT: a Vision Transformer in ConvNet's Clothing for Faster Inference" (arXiv 2104.01136).
VARIANTS = {
    "128S": _variant((128, 256, 384), (4, 6, 8), (2, 3, 4), 16),
    "128": _variant((128, 256, 384), (4, 8, 12), (4, 4, 4), 16),
    "192": _variant((192, 288, 384), (3, 5, 6), (4, 4, 4), 32),
    "256": _variant((256, 384, 512), (4, 6, 8), (4, 4, 4), 32),
    "384": _variant((384, 512, 768), (6, 9, 12), (4, 4, 4), 32, drop_path_rate=0.1),
}
