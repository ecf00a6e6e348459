"""Loading and saving a model as Hugging Face's tools do: hub id, folder or file in, safetensors folder out."""

import dataclasses
from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelHubMixin
from safetensors.torch import save_file
from torch import nn

from levit_batch.levit.weights import read_published
from levit_batch.pixels.preprocessing import Preprocessing


class HubModel(
    nn.Module,
    ModelHubMixin,
    library_name="transformers",
    pipeline_tag="image-classification",
    tags=["levit", "levit-batch"],
    repo_url="https://github.com/facebookresearch/LeViT",
    paper_url="https://arxiv.org/abs/2104.01136",
):
    """Base of the three models: `from_pretrained`, `save_pretrained`, `push_to_hub`.

    `save_pretrained(folder)` writes `model.safetensors`, `config.json` and `preprocessor_config.json` that transformers
    loads; `push_to_hub(repo_id)` uploads the same folder (both from huggingface_hub's mixin, with its options).
    `heads` names the heads that a class takes from a checkpoint, `prefix` what its own tensors' names have in front there.
    `processor` holds the preprocessing values that go with the weights: a checkpoint's own, else the defaults.
    """

    heads: tuple[str, ...] = ()
    prefix = ""
    processor: dict[str, Any] | None = None

    @classmethod
    def from_pretrained(cls, checkpoint: str | Path, *, revision: str | None = None) -> Self:
        """The model of `checkpoint` (hub id, folder or file of any published form), in eval mode and float32.

        Raises CheckpointError when it does not exist, is not a LeViT or lacks one of this class's heads.
        """
        return read_published(str(checkpoint), revision).fill(cls)

    def _save_pretrained(self, save_directory: Path) -> None:
        folder = Path(save_directory)
        weights = {name: tensor.detach().contiguous().cpu() for name, tensor in self.state_dict().items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        published = dataclasses.replace(self.config, architectures=(type(self).__name__,))
        if not float(published.drop_path_rate).is_integer():
            # Training only, and transformers 5 refuses a configuration with a fraction here.
            published = dataclasses.replace(published, drop_path_rate=0)
        published.save(folder)
        shape = self.config.image_size, self.config.num_channels
        Preprocessing.read(self.processor, *shape).fitting(*shape).write(folder)
