"""A configuration as file and dictionary, in the ways of transformers' `PreTrainedConfig`.

No torch here: it is loaded only where a checkpoint is looked up.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar, Self

from levit_batch.errors import CheckpointError

CONFIG = "config.json"
USUAL = {"problem_type": None, "output_hidden_states": False, "return_dict": True, "architectures": None, "dtype": None}
NOT_KEPT = {"model_type", "transformers_version", "name_or_path", "return_unused_kwargs"}  # say nothing about the model


class ConfigFiles:
    """Base of `LevitConfig`: how it is read and written.

    A keyword that is no field is kept as an attribute (and written), as transformers keeps it, unless it starts with an
    underscore or is one of NOT_KEPT.
    """

    model_type: ClassVar[str] = "levit"
    sub_configs: ClassVar[dict] = {}  # none; `AutoModel` of transformers looks

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self | tuple[Self, dict[str, Any]]:
        """From the `config.json` of a hub id or folder, or any JSON file.

        `options` are where to look (`checkpoint_files.Where`: revision, subfolder, cache_dir, token, ...) and values that
        replace the file's, as for `from_dict`. Raises CheckpointError when there is no such file or it is no LeViT's.
        """
        from levit_batch.levit.checkpoint_files import Where, read_config

        where, values = Where.split(options)
        return cls.from_dict(read_config(pretrained_model_name_or_path, where), **values)

    @classmethod
    def from_json_file(cls, json_file: str | Path) -> Self:
        """Raises CheckpointError when the file is missing or holds no LeViT's configuration."""
        return cls.from_pretrained(Path(json_file))

    @classmethod
    def from_dict(
        cls, config_dict: dict[str, Any], return_unused_kwargs: bool = False, **changes: Any
    ) -> Self | tuple[Self, dict[str, Any]]:
        """From the content of a `config.json`; `changes` to its fields replace what it says.

        What is no attribute of the result comes back beside it with `return_unused_kwargs`, and is refused by name
        (TypeError) without. Raises CheckpointError when the values are not a LeViT's.
        """
        if config_dict.get("model_type", cls.model_type) != cls.model_type:
            raise CheckpointError(f"{CONFIG} describes a {config_dict['model_type']!r} model, not a LeViT")
        changes = {name: value for name, value in changes.items() if not _left_out(name)}
        known = {f.name for f in dataclasses.fields(cls)} | config_dict.keys()
        unused = {name: value for name, value in changes.items() if name not in known}
        if unused and not return_unused_kwargs:
            raise TypeError(f"{cls.__name__} has no {', '.join(sorted(unused))}")
        try:
            config = cls(**config_dict).changed(**{name: value for name, value in changes.items() if name in known})
        except (TypeError, ValueError, IndexError, AttributeError) as error:
            raise CheckpointError(f"{CONFIG} is not a LeViT configuration: {error}") from error
        return (config, unused) if return_unused_kwargs else config

    def _others(self, values: dict[str, Any]) -> dict[str, Any]:
        """Those of the keywords beside the fields that are kept. Raises TypeError where one would hide a method."""
        kept = {name: value for name, value in values.items() if not _left_out(name)}
        if hiding := [name for name in kept if hasattr(type(self), name)]:
            raise TypeError(f"{type(self).__name__} cannot have a value named {', '.join(hiding)}")
        return kept

    def to_dict(self) -> dict[str, Any]:
        """The content of a `config.json` that transformers reads (`num_labels` is the length of `id2label` there)."""
        values = {name: value for name, value in vars(self).items() if name != "num_labels"}
        values |= {"id2label": dict(self.id2label), "label2id": dict(self.label2id)}
        values["down_ops"] = [list(op) for op in self.down_ops]
        if float(self.drop_path_rate).is_integer():  # transformers 5 accepts an int only
            values["drop_path_rate"] = int(self.drop_path_rate)
        return {"model_type": self.model_type} | {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    def to_diff_dict(self) -> dict[str, Any]:
        """`to_dict` without what every configuration has when nothing is said: what is written to files."""
        return {name: value for name, value in self.to_dict().items() if name not in USUAL or value != USUAL[name]}

    def to_json_string(self, use_diff: bool = True) -> str:
        return json.dumps(self.to_diff_dict() if use_diff else self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | Path, use_diff: bool = True) -> None:
        Path(json_file_path).write_text(self.to_json_string(use_diff))

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write `config.json` into this folder (made if missing)."""
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        self.to_json_file(Path(save_directory, CONFIG))


def _left_out(name: str) -> bool:
    return name in NOT_KEPT or name.startswith("_")
