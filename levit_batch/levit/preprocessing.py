"""The preprocessing that goes with a checkpoint, as the full set of `preprocessor_config.json` values."""

import json
import math
from pathlib import Path
from typing import Any

from levit_batch.errors import CheckpointError
from levit_batch.levit.config import LevitConfig

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet, red green blue
RESAMPLE = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}  # Pillow's numbers
EDGE_RATIO = 256 / 224  # LeViT resizes the shortest edge to int(this * size["shortest_edge"])


def default_processor(config: LevitConfig) -> dict[str, Any]:
    """As the authors and Hugging Face do: shortest edge to int(256/224 * size) bicubic, centre crop, ImageNet mean."""
    side = config.image_size
    return {
        "image_processor_type": "LevitImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": RESAMPLE["bicubic"],
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": MEAN[: config.num_channels],
        "image_std": STD[: config.num_channels],
    }


def full_processor(values: dict[str, Any] | None, config: LevitConfig) -> dict[str, Any]:
    """`values` of a `preprocessor_config.json` with every field filled in and sizes as dictionaries.

    Raises CheckpointError when a value is not one that a LeViT processor knows, or makes other pixels than the
    model takes.
    """
    processor = default_processor(config)
    given = {name: value for name, value in (values or {}).items() if name in processor and value is not None}
    processor |= given | {"image_processor_type": "LevitImageProcessor"}
    if isinstance(processor["size"], int):  # older files hold plain numbers
        processor["size"] = {"shortest_edge": processor["size"]}
    if isinstance(processor["crop_size"], int):
        processor["crop_size"] = {"height": processor["crop_size"], "width": processor["crop_size"]}
    _check(processor, config)
    return processor


def _check(processor: dict[str, Any], config: LevitConfig) -> None:
    size = processor["size"]
    if not ({"shortest_edge"} == set(size) or {"height", "width"} == set(size)):
        raise CheckpointError(f"preprocessor_config.json: size needs shortest_edge, or height and width: {size}")
    made = processor["crop_size"] if processor["do_center_crop"] else size
    if (made.get("height"), made.get("width")) != (config.image_size, config.image_size):
        raise CheckpointError(
            f"preprocessor_config.json makes images of {made}, but the model takes {config.image_size} x "
            f"{config.image_size} pixels; give the preprocessing that belongs to these weights"
        )
    for name in ("image_mean", "image_std"):
        if len(processor[name]) != config.num_channels or (name == "image_std" and 0 in processor[name]):
            raise CheckpointError(
                f"preprocessor_config.json: {name} needs {config.num_channels} values: {processor[name]}"
            )
    if processor["resample"] not in RESAMPLE.values():
        raise CheckpointError(f"preprocessor_config.json: resample {processor['resample']} is not one of {RESAMPLE}")


def timm_processor(timm_config: dict[str, Any], config: LevitConfig) -> dict[str, Any]:
    """timm's `pretrained_cfg` in the same fields: crop_pct 0.9 of 224 becomes a shortest edge of 248 before the crop.

    Raises CheckpointError for what a LeViT processor cannot do.
    """
    values = timm_config.get("pretrained_cfg") or timm_config
    if values.get("crop_mode", "center") != "center" or values.get("interpolation", "bicubic") not in RESAMPLE:
        raise CheckpointError(
            f"timm's preprocessing (crop_mode {values.get('crop_mode')}, interpolation {values.get('interpolation')}) "
            "is not resize and centre crop; put a preprocessor_config.json beside the weights"
        )
    edge = math.floor(config.image_size / values.get("crop_pct", 0.9))
    given = {
        "size": {"shortest_edge": _size_for_edge(edge)},
        "resample": RESAMPLE[values.get("interpolation", "bicubic")],
        "image_mean": list(values.get("mean", MEAN)),
        "image_std": list(values.get("std", STD)),
    }
    return full_processor(given, config)


def _size_for_edge(edge: int) -> int | float:
    """The `shortest_edge` that LeViT's rule turns into `edge` pixels; every eighth edge has only a fractional one."""
    whole = round(edge / EDGE_RATIO)
    candidates = [whole - 1, whole, whole + 1, (edge + 0.5) / EDGE_RATIO]
    return next(size for size in candidates if int(EDGE_RATIO * size) == edge)


def write_processor(processor: dict[str, Any], folder: Path) -> None:
    """Write `preprocessor_config.json` into `folder`."""
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2, sort_keys=True) + "\n")
