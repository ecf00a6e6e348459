"""`LevitImageProcessor`: images in memory -> the `pixel_values` of a LeViT, as transformers' classes compute them.

Labelling jobs do not come through here (`pixels/preprocess.py` starts from encoded bytes and ends at uint8).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from levit_batch.errors import CheckpointError
from levit_batch.levit.checkpoint_files import read_descriptions
from levit_batch.levit.processor_images import ImageLike, as_list, as_rgb
from levit_batch.pixels.fit import centre_crop
from levit_batch.pixels.preprocessing import Preprocessing
from levit_batch.pixels.resize import resize, resize_floats, resize_pillow

BACKENDS = ("torch", "pil")
FIELDS = Preprocessing.read().to_dict().keys()


class ProcessedImages(dict):
    """`pixel_values` under that key and as an attribute, so that `model(**processed)` works."""

    @property
    def pixel_values(self) -> Any:
        return self["pixel_values"]

    def to(self, *args: Any, **kwargs: Any) -> "ProcessedImages":
        """Move or cast the tensors, as `torch.Tensor.to`."""
        return ProcessedImages({name: value.to(*args, **kwargs) for name, value in self.items()})


class LevitImageProcessor:
    """Resize, centre crop, rescale and normalise images for a LeViT.

    Every field of `preprocessor_config.json` is an argument and an attribute (sizes in pixels):
        do_resize, size         {"shortest_edge": s}: the shorter edge becomes int(256/224 * s), the aspect ratio stays;
                                {"height", "width"}: exactly that. A number means shortest_edge.
        resample                Pillow's number of the filter (3: bicubic), antialiased
        do_center_crop, crop_size   {"height", "width"} or a number; black surrounds what is smaller
        do_rescale, rescale_factor  multiply 0..255 by this
        do_normalize, image_mean, image_std   per channel, after rescaling

    `backend` chooses whose arithmetic is followed: "torch" (the default) gives the pixels of transformers'
    `LevitImageProcessor`, "pil" those of its `LevitImageProcessorPil`; they differ by up to 2 levels of 255. Images
    that those classes refuse (grey, transparent, CMYK, 16-bit) are converted to RGB as `processor_images.as_rgb` says.
    Source of the rule: the LeViT authors' evaluation transform, as transformers has it.
    """

    model_input_names = ["pixel_values"]

    def __init__(self, backend: str = "torch", **fields: Any):
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
        if unknown := fields.keys() - FIELDS:
            raise TypeError(f"LevitImageProcessor has no field {', '.join(sorted(unknown))}")
        self.backend = backend
        self.__dict__.update(Preprocessing.read(fields).to_dict())

    @property
    def preprocessing(self) -> Preprocessing:
        """The attributes' values as they are now, checked."""
        return Preprocessing.read({name: getattr(self, name) for name in FIELDS})

    def __call__(self, images: ImageLike | Sequence[ImageLike], *args: Any, **kwargs: Any) -> ProcessedImages:
        """Same as `preprocess`."""
        return self.preprocess(images, *args, **kwargs)

    def preprocess(
        self,
        images: ImageLike | Sequence[ImageLike],
        return_tensors: str | None = None,
        input_data_format: str | None = None,
        **fields: Any,
    ) -> ProcessedImages:
        """PIL images, arrays or tensors, one or many -> `pixel_values`.

        `return_tensors` "pt" gives a tensor float32 [N, 3, height, width], "np" an array of the same, None a list with
        [3, height, width] for each image. Without rescaling and normalising the values stay uint8. `fields` override
        the processor's own for this call. Raises ValueError for images that cannot be stacked or read.
        """
        if fields:
            return type(self)(self.backend, **self.to_dict() | fields).preprocess(images, return_tensors, input_data_format)
        now = self.preprocessing
        values = [self._one(as_rgb(image, input_data_format), now) for image in as_list(images)]
        return ProcessedImages(pixel_values=_stack(values, return_tensors))

    def _one(self, pixels: np.ndarray, now: Preprocessing) -> np.ndarray | torch.Tensor:
        """[H, W, 3] -> [3, height, width]"""
        if now.do_resize:
            pixels = self._resize(pixels, now.resized(*pixels.shape[:2]), now.filter)
        if now.do_center_crop:
            cropped = np.empty((*now.crop, 3), pixels.dtype)
            centre_crop(pixels, cropped, odd_before=self.backend == "pil")
            pixels = cropped
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        if self.backend == "pil":
            return _as_pillow(planes, now)
        return _as_torch(torch.from_numpy(planes), now)

    def _resize(self, pixels: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
        if self.backend == "pil":
            return resize_pillow(pixels, size, resample)
        return (resize if pixels.dtype == np.uint8 else resize_floats)(pixels, size, resample)

    @classmethod
    def from_pretrained(cls, checkpoint: str, revision: str | None = None, **fields: Any) -> "LevitImageProcessor":
        """From a hub id, a folder, or a `preprocessor_config.json`; `fields` (and `backend`) override what it says.

        timm's checkpoints say theirs in `config.json`. Raises CheckpointError when there is neither.
        """
        path = Path(checkpoint).expanduser()
        if path.is_file():
            return cls.from_dict(json.loads(path.read_text()), **fields)
        config, values = read_descriptions(checkpoint, revision)
        if values is None and "architecture" in (config or {}):
            side = (config.get("pretrained_cfg") or config).get("input_size", [3, 224, 224])[-1]
            values = Preprocessing.read_timm(config, side).to_dict()
        if values is None:
            raise CheckpointError(f"checkpoint {checkpoint} has no preprocessor_config.json")
        return cls.from_dict(values, **fields)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `preprocessor_config.json`, which transformers also loads, into `folder` (made if missing)."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.preprocessing.write(Path(folder))

    @classmethod
    def from_dict(cls, values: dict[str, Any], **fields: Any) -> "LevitImageProcessor":
        """From the values of a `preprocessor_config.json`; keys that are not a LeViT processor's are ignored."""
        return cls(**{name: values[name] for name in FIELDS & values.keys()} | fields)

    def to_dict(self) -> dict[str, Any]:
        """Every field, as `preprocessor_config.json` holds them."""
        return self.preprocessing.to_dict()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(backend={self.backend!r}) {json.dumps(self.to_dict(), indent=2)}"


class LevitFeatureExtractor(LevitImageProcessor):
    """The old name of `LevitImageProcessor`."""


# (pixels * rescale_factor - image_mean) / image_std in float32, [3, H, W], or as asked less of it. The two backends of
# transformers round differently in the last bit.
def _as_torch(planes: torch.Tensor, values: Preprocessing) -> torch.Tensor:
    """The factor goes into mean and deviation, so that each value is touched twice and not three times."""
    if not values.do_normalize:
        return planes * values.rescale_factor if values.do_rescale else planes
    scale = 1.0 / values.rescale_factor if values.do_rescale else 1.0
    mean = torch.tensor(values.image_mean) * scale
    std = torch.tensor(values.image_std) * scale
    return (planes.to(torch.float32) - mean.view(-1, 1, 1)) / std.view(-1, 1, 1)


def _as_pillow(planes: np.ndarray, values: Preprocessing) -> np.ndarray:
    if values.do_rescale:
        planes = (planes.astype(np.float64) * values.rescale_factor).astype(np.float32)
    if not values.do_normalize:
        return planes
    mean, std = (np.array(v, np.float32).reshape(-1, 1, 1) for v in (values.image_mean, values.image_std))
    return (planes.astype(np.float32) - mean) / std


def _stack(values: list, return_tensors: str | None) -> Any:
    if return_tensors is None:
        return values
    if len({tuple(value.shape) for value in values}) > 1:
        raise ValueError("the images differ in size after preprocessing; crop them, or pass return_tensors=None")
    if return_tensors == "pt":
        return torch.stack([torch.as_tensor(value) for value in values])
    if return_tensors == "np":
        return np.stack([np.asarray(value) for value in values])
    raise ValueError(f"return_tensors must be 'pt', 'np' or None, got {return_tensors!r}")
