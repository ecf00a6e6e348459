"""How an image becomes what a LeViT takes: the values of `preprocessor_config.json`, read and checked here alone.

No torch here: the decoding child imports this package.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from levit_batch.errors import CheckpointError

FILE = "preprocessor_config.json"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet, red green blue
EDGE_RATIO = 256 / 224  # LeViT resizes the shortest edge to int(this * size["shortest_edge"])
Size = dict[str, int | float]


@dataclass(frozen=True)
class Preprocessing:
    """Every field of `preprocessor_config.json`, in its names; sizes are dictionaries, numbers and pairs become ones.

    Raises CheckpointError for a size or filter that makes no sense.
    """

    do_resize: bool
    size: Size  # the shorter edge becomes int(256/224 * "shortest_edge"), or the image exactly "height" x "width"
    resample: int  # Pillow's number of the filter
    do_center_crop: bool
    crop_size: Size  # "height", "width"
    do_rescale: bool
    rescale_factor: float
    do_normalize: bool
    image_mean: list[float]
    image_std: list[float]

    def __post_init__(self):
        object.__setattr__(self, "size", as_size("size", self.size, "shortest_edge"))
        object.__setattr__(self, "crop_size", as_size("crop_size", self.crop_size, "height", "width"))
        if self.resample not in list(Image.Resampling):
            raise CheckpointError(f"{FILE}: resample is {self.resample!r}; it must be a Pillow filter, 0 to 5")

    @classmethod
    def read(cls, values: Mapping[str, Any] | None = None, side: int = 224, channels: int = 3) -> Self:
        """`values`, and for each that is not there (or None) what the authors and Hugging Face take for a model of `side`.

        That is: shortest edge to int(256/224 * side) bicubic, centre crop, ImageNet's mean. A step (`do_...`) that is None
        is off, as with Hugging Face. Unknown values are left out.
        """
        fields = {"do_resize": True, "size": side, "resample": int(Image.Resampling.BICUBIC)}
        fields |= {"do_center_crop": True, "crop_size": side, "do_rescale": True, "rescale_factor": 1 / 255}
        fields |= {"do_normalize": True, "image_mean": _of(MEAN, channels), "image_std": _of(STD, channels)}
        given = {name: bool(value) if name.startswith("do_") else value for name, value in (values or {}).items()}
        return cls(**fields | {name: value for name, value in given.items() if name in fields and value is not None})

    @classmethod
    def read_timm(cls, config: Mapping[str, Any], side: int, channels: int = 3) -> Self:
        """timm's `pretrained_cfg`: crop_pct 0.9 of 224 becomes a shortest edge of 248 before the crop.

        Raises CheckpointError for what a LeViT processor cannot do.
        """
        values = config.get("pretrained_cfg") or config
        mode, name = values.get("crop_mode", "center"), values.get("interpolation", "bicubic")
        if mode != "center" or name.upper() not in Image.Resampling.__members__:
            raise CheckpointError(
                f"timm's preprocessing (crop_mode {mode}, interpolation {name}) is not resize and centre crop; put a "
                f"{FILE} beside the weights"
            )
        edge = {"shortest_edge": _size_for_edge(math.floor(side / values.get("crop_pct", 0.9)))}
        colours = {"image_mean": list(values.get("mean", MEAN)), "image_std": list(values.get("std", STD))}
        resample = int(Image.Resampling[name.upper()])
        return cls.read({"size": edge, "resample": resample} | colours, side, channels)

    def fitting(self, side: int, channels: int) -> Self:
        """Itself. Raises CheckpointError where it makes other pixels than a model of [channels, side, side] takes."""
        height, width = self.output()
        if (height, width) != (side, side):
            raise CheckpointError(
                f"{FILE} makes images of {height} x {width}, but the model takes {side} x {side} pixels; give the "
                "preprocessing that belongs to these weights"
            )
        for name, numbers in (("image_mean", self.image_mean), ("image_std", self.image_std)):
            if len(numbers) != channels or (name == "image_std" and 0 in numbers):
                raise CheckpointError(f"{FILE}: {name} needs {channels} values: {numbers}")
        return self

    def to_dict(self) -> dict[str, Any]:
        """The content of the file."""
        return {"image_processor_type": "LevitImageProcessor"} | dataclasses.asdict(self)

    def write(self, folder: Path) -> None:
        (folder / FILE).write_text(json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n")

    @property
    def filter(self) -> Image.Resampling:
        return Image.Resampling(self.resample)

    @property
    def edge(self) -> int:
        """What the shorter edge is scaled to; 0 where it is not."""
        return int(EDGE_RATIO * self.size.get("shortest_edge", 0)) if self.do_resize else 0

    @property
    def crop(self) -> tuple[int, int] | None:
        return (self.crop_size["height"], self.crop_size["width"]) if self.do_center_crop else None

    @property
    def fixed(self) -> tuple[int, int] | None:
        """(height, width) of every resized image, where that is fixed."""
        return (self.size["height"], self.size["width"]) if self.do_resize and "height" in self.size else None

    def output(self) -> tuple[int, int]:
        """(height, width) of every result. Raises CheckpointError where it would depend on the image."""
        if made := self.crop or self.fixed:
            return made
        raise CheckpointError(
            f"{FILE}: images would come out in different sizes, and LeViT takes one; "
            "set do_center_crop with a crop_size, or do_resize with a size of height and width"
        )

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the resize, before the crop."""
        if fixed := self.fixed:
            return fixed
        edge = self.edge
        if not edge:
            return height, width
        return (int(edge * height / width), edge) if width <= height else (edge, int(edge * width / height))

    def sharp_edge(self) -> int:
        """An image whose shorter edge has this many pixels resizes to nearly what the whole of it would (0: unknown).

        Half as long again as the result: the mean difference is then under 1 level of 255, and 3 at 1.0 times.
        """
        return int(1.5 * max(self.fixed or (self.edge,)))

    def shift_and_scale(self) -> tuple[np.ndarray, np.ndarray]:
        """float64 [C] each: normalised pixel = (pixel - shift) * scale."""
        factor = self.rescale_factor if self.do_rescale else 1.0
        mean, std = np.array(self.image_mean, np.float64), np.array(self.image_std, np.float64)
        return (mean / factor, factor / std) if self.do_normalize else (np.zeros_like(mean), np.full_like(std, factor))


def _of(colours: list[float], channels: int) -> list[float]:
    """For other than three channels there is no usual value; these make a model of them loadable."""
    return (colours * channels)[:channels]


def as_size(name: str, value: Any, *keys: str) -> Size:
    """A number (of each of `keys`), a pair (height, width) or a dictionary as a dictionary of `keys`, or of both edges."""
    if isinstance(value, int | float):
        size = dict.fromkeys(keys, value)
    elif hasattr(value, "keys"):
        size = {key: edge for key, edge in dict(value).items() if edge is not None}
    else:
        size = {"height": value[0], "width": value[1]} if isinstance(value, list | tuple) and len(value) == 2 else {}
    kind = int if "height" in size else int | float
    if {*size} not in ({"height", "width"}, {*keys}) or not all(isinstance(v, kind) and v > 0 for v in size.values()):
        needed = "shortest_edge, or height and width" if len(keys) == 1 else "height and width"
        raise CheckpointError(f"{FILE}: {name} is {value!r}; it must be a number, or have {needed}")
    return size


def _size_for_edge(edge: int) -> int | float:
    """The `shortest_edge` that LeViT's rule turns into `edge` pixels; every eighth edge has only a fractional one."""
    whole = round(edge / EDGE_RATIO)
    candidates = [whole - 1, whole, whole + 1, (edge + 0.5) / EDGE_RATIO]
    return next(size for size in candidates if int(EDGE_RATIO * size) == edge)
