"""Loading and saving a model as Hugging Face's tools do: hub id, folder or file in, safetensors folder out."""

import copy
import inspect
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelHubMixin, save_torch_state_dict
from torch import Tensor, nn

from levit_batch.errors import CheckpointError
from levit_batch.levit.checkpoint_files import Where
from levit_batch.levit.config import LevitConfig
from levit_batch.levit.outputs import ModelOutput
from levit_batch.levit.weights import Published, check_fit, read_published
from levit_batch.pixels.preprocessing import Preprocessing

AUTO = ("trust_remote_code", "adapter_kwargs")  # what `AutoModel` of transformers passes even when nobody asked for it


class HubModel(
    nn.Module,
    ModelHubMixin,
    library_name="transformers",
    pipeline_tag="image-classification",
    tags=["levit", "levit-batch"],
    repo_url="https://github.com/facebookresearch/LeViT",
    paper_url="https://arxiv.org/abs/2104.01136",
):
    """Base of the three models: `from_pretrained`, `save_pretrained`, `push_to_hub` (huggingface_hub's, with its options).

    `heads` names the heads that a class takes from a checkpoint, `prefix` what its own tensors' names have in front there.
    `processor` holds the preprocessing values that go with the weights: a checkpoint's own, else the defaults. `config` is
    the model's own copy.
    """

    config_class, base_model_prefix, main_input_name = LevitConfig, "levit", "pixel_values"
    heads: tuple[str, ...] = ()
    prefix = ""
    processor: dict[str, Any] | None = None

    def __init__(self, config: LevitConfig | None = None):
        super().__init__()
        self.config = copy.deepcopy(config) if config else LevitConfig()
        self.config.check()

    @property
    def num_labels(self) -> int:
        return self.config.num_labels

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def num_parameters(self, only_trainable: bool = False) -> int:
        return sum(p.numel() for p in self.parameters() if p.requires_grad or not only_trainable)

    def _returned(self, output: ModelOutput, return_dict: bool | None, features: ModelOutput | None = None) -> Any:
        """`output`, with the embedding that the `features` have, or the tuple of it."""
        if not asked_for(return_dict, self.config.return_dict):
            return output.to_tuple()
        if features is not None:
            output.pooler_output = features.pooler_output
        return output

    @classmethod
    def from_pretrained(
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: LevitConfig | None = None,
        dtype: torch.dtype | str | None = None,
        ignore_mismatched_sizes: bool = False,
        output_loading_info: bool = False,
        **options: Any,
    ) -> Self | tuple[Self, dict[str, Any]]:
        """The model of a checkpoint (hub id, folder or file of any published form), in eval mode.

        `options` are where to look (revision, subfolder, cache_dir, token, local_files_only, force_download) and fields of
        the configuration that replace the file's (num_labels, id2label, label2id, problem_type, ...), as does `config`
        all of them. A head for other classes needs `ignore_mismatched_sizes`, and is fresh then. `dtype` is float32
        unless it says otherwise, whatever the file holds; "auto" is the file's. With `output_loading_info` comes a
        dictionary of what was missing, unexpected and mismatched.

        Raises CheckpointError when it does not exist, is not a LeViT or lacks one of this class's heads, TypeError for an
        unknown option.
        """
        where, changes = Where.split(options)
        changes = {name: value for name, value in changes.items() if value or name not in AUTO}
        dtype = changes.pop("torch_dtype", dtype)  # its name before transformers 5
        published = read_published(pretrained_model_name_or_path, where).changed(config, changes)
        model, info = published.fill(cls, ignore_mismatched_sizes)
        model.to(_dtype(dtype, published))
        model.config.dtype = model.dtype
        return (model, info) if output_loading_info else model

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        state_dict: dict[str, Tensor] | None = None,
        max_shard_size: int | str = "50GB",
        push_to_hub: bool = False,
        repo_id: str | None = None,
        model_card_kwargs: dict[str, Any] | None = None,
        config: None = None,
        **options: Any,
    ) -> str | None:
        """Write `model.safetensors`, `config.json` and `preprocessor_config.json` that transformers loads.

        `state_dict` takes the place of the model's own weights and must fit it; above `max_shard_size` there are several
        weight files and an index. With `push_to_hub` the model goes to `repo_id` (by default the folder's name), with the
        `options` of `push_to_hub`; its address is returned. Raises TypeError for any other option.
        """
        folder, known = Path(save_directory), inspect.signature(self.push_to_hub).parameters
        if unknown := [name for name in options if name not in known] + ["config"] * (config is not None):
            raise TypeError(f"save_pretrained has no option {', '.join(unknown)}")
        if push_to_hub and (state_dict is not None or max_shard_size != "50GB"):
            raise TypeError("save_pretrained pushes the model's own weights, in one file: save first, then upload the folder")
        if folder.is_file():
            raise CheckpointError(f"{folder} is a file; give a folder to save into")
        folder.mkdir(parents=True, exist_ok=True)
        self._write(folder, state_dict, max_shard_size)
        if not (folder / "README.md").exists():
            self.generate_model_card(**model_card_kwargs or {}).save(folder / "README.md")
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.name, model_card_kwargs=model_card_kwargs, **options)

    def _write(self, folder: Path, state_dict: dict[str, Tensor] | None, max_shard_size: int | str) -> None:
        weights = self.state_dict() if state_dict is None else state_dict
        if state_dict is not None:
            check_fit(self, state_dict, "state_dict")
        weights = {name: tensor.detach().contiguous().cpu() for name, tensor in weights.items()}
        dtype = next(tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
        published = self.config.changed(architectures=(type(self).__name__,), dtype=dtype)
        if not float(published.drop_path_rate).is_integer():
            # Training only, and transformers 5 refuses a configuration with a fraction here.
            published.drop_path_rate = 0
        shape = self.config.image_size, self.config.num_channels
        preprocessing = Preprocessing.read(self.processor, *shape).fitting(*shape)
        save_torch_state_dict(weights, folder, max_shard_size=max_shard_size)
        published.save_pretrained(folder)
        preprocessing.write(folder)


def asked_for(given: bool | None, otherwise: bool) -> bool:
    """What a call says, else the configuration."""
    return otherwise if given is None else given


def _dtype(asked: torch.dtype | str | None, published: Published) -> torch.dtype:
    """Raises CheckpointError for what is no floating-point type."""
    if asked == "auto":
        own = next(tensor.dtype for tensor in published.weights.values() if tensor.is_floating_point())
        asked = published.config.dtype or own
    dtype = torch.float32 if asked is None else getattr(torch, str(asked).removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise CheckpointError(f"dtype is {asked!r}; it must be a floating-point type of torch, or 'auto'")
    return dtype
