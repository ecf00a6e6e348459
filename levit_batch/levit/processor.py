"""`LevitImageProcessor`: images in memory -> the `pixel_values` of a LeViT, as transformers' classes compute them.

Labelling jobs do not come through here (`pixels/preprocess.py` starts from encoded bytes and ends at uint8).
"""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image

from levit_batch.errors import CheckpointError
from levit_batch.levit.checkpoint_files import Where, local_path, read_descriptions, read_json
from levit_batch.levit.processor_images import ImageLike, as_list, as_rgb
from levit_batch.levit.processor_values import Values, arranged, as_pillow, as_torch, pad, stack
from levit_batch.pixels.fit import centre_crop
from levit_batch.pixels.preprocessing import FILE, Preprocessing, as_size
from levit_batch.pixels.resize import resize, resize_floats, resize_pillow

BACKENDS = ("torch", "pil")
FIELDS = Preprocessing.read().to_dict().keys()
STEPS = {
    "do_resize": ("size", "resample"),
    "do_center_crop": ("crop_size",),
    "do_rescale": ("rescale_factor",),
    "do_normalize": ("image_mean", "image_std"),
}  # and what each needs
OPTIONS = dict.fromkeys(["do_convert_rgb", "do_pad", "pad_size", "data_format", "input_data_format", "device", "return_tensors"])
OPTIONS |= {"default_to_square": False, "disable_grouping": None, "image_seq_length": None}


class ProcessedImages(dict):
    """`pixel_values`, and whatever a caller adds, by name and as attributes, so that `model(**processed)` works."""

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"{type(self).__name__} has no {name}")

    def to(self, *args: Any, **kwargs: Any) -> "ProcessedImages":
        """Tensors moved, and those of floating point cast, as `torch.Tensor.to`; all else as it is."""
        return ProcessedImages({name: _moved(value, *args, **kwargs) for name, value in self.items()})


def _moved(value: Any, *args: Any, **kwargs: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    moved = value.to(*args, **kwargs)
    return moved if value.is_floating_point() else moved.to(value.dtype)


class LevitImageProcessor:
    """Resize, centre crop, rescale and normalise images for a LeViT.

    Every field of `preprocessor_config.json` is an argument, an attribute that may be set, and an argument of a call:
        do_resize, size         {"shortest_edge": s}: the shorter edge becomes int(256/224 * s), the aspect ratio stays;
                                {"height", "width"}: exactly that. A number means shortest_edge.
        resample                Pillow's number of the filter (3: bicubic), antialiased
        do_center_crop, crop_size   {"height", "width"} or a number; black surrounds what is smaller
        do_rescale, rescale_factor  multiply 0..255 by this
        do_normalize, image_mean, image_std   per channel, after rescaling
    and so are transformers' other ones:
        do_convert_rgb          False refuses (ValueError) what is not RGB already; else it is converted
        default_to_square       True: a number as `size` means both edges
        do_pad, pad_size        zeros below and to the right, up to {"height", "width"} or the largest image
        data_format             "channels_last": [height, width, 3] for each image
        input_data_format       "channels_first" or "channels_last", where an array's shape does not say it
        return_tensors          "pt", "np" or None
        device                  where tensors go in the end; the pixels are computed on the CPU, the same on all devices
        disable_grouping, image_seq_length   have no effect: each image is computed by itself

    `backend` chooses whose arithmetic is followed: "torch" (the default) gives the pixels of transformers'
    `LevitImageProcessor`, "pil" those of its `LevitImageProcessorPil`; they differ by up to 2 levels of 255. Images
    that those classes refuse (grey, transparent, CMYK, 16-bit) are converted to RGB as `processor_images.as_rgb` says.
    Source of the rule: the LeViT authors' evaluation transform, as transformers has it.
    """

    model_input_names = ["pixel_values"]

    def __init__(self, backend: str = "torch", **fields: Any):
        if backend not in BACKENDS:
            raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
        self.backend = backend
        self.__dict__ |= Preprocessing.read().to_dict() | OPTIONS
        self._set(fields)

    def _set(self, fields: dict[str, Any]) -> None:
        if unknown := fields.keys() - FIELDS - OPTIONS.keys():
            raise TypeError(f"LevitImageProcessor has no field {', '.join(sorted(unknown))}")
        self.__dict__ |= fields
        if self.default_to_square and isinstance(self.size, int):
            self.size = {"height": self.size, "width": self.size}
        self.pad_size = self._pad_size()
        self.__dict__ |= self.preprocessing.to_dict()

    def _pad_size(self) -> dict[str, int] | None:
        return as_size("pad_size", self.pad_size, "height", "width") if self.pad_size else None

    @property
    def preprocessing(self) -> Preprocessing:
        """The attributes' values as they are now, checked. A step that is None is off, as in transformers."""
        values = {name: getattr(self, name) for name in FIELDS} | {name: bool(getattr(self, name)) for name in STEPS}
        for step, needed in STEPS.items():
            for name in needed if values[step] else ():
                if values[name] is None:
                    raise ValueError(f"{step} needs {name}")
        for name in ("image_mean", "image_std"):
            numbers = values[name]
            values[name] = [numbers] * 3 if isinstance(numbers, int | float) else numbers and list(numbers)
            if values["do_normalize"] and len(values[name]) != 3:
                raise ValueError(f"{name} must be a number or have 3: {numbers}")
        return Preprocessing.read(values)

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
        """PIL images, arrays or tensors, one, many or lists of many -> `pixel_values`.

        `return_tensors` "pt" gives a tensor float32 [N, 3, height, width], "np" an array of the same, None a list with
        [3, height, width] for each image. Without rescaling and normalising the values stay uint8. `fields` override
        the processor's own for this call. Raises ValueError for images that cannot be stacked or read, TypeError for what
        is no image.
        """
        if return_tensors is not None:
            fields["return_tensors"] = return_tensors
        if input_data_format is not None:
            fields["input_data_format"] = input_data_format
        if fields:
            changed = copy.copy(self)
            changed._set(fields)
            return changed.preprocess(images)
        now, convert = self.preprocessing, self.do_convert_rgb is not False
        values = [self._one(as_rgb(image, self.input_data_format, convert), now) for image in as_list(images)]
        values = arranged(pad(values, self._pad_size()) if self.do_pad else values, self.data_format)
        return ProcessedImages(pixel_values=stack(values, self.return_tensors, self.device))

    def _one(self, pixels: np.ndarray, now: Preprocessing) -> Values:
        """[H, W, 3] -> [3, height, width]"""
        if now.do_resize:
            pixels = self._resize(pixels, now.resized(*pixels.shape[:2]), now.filter)
        if now.do_center_crop:
            cropped = np.empty((*now.crop, 3), pixels.dtype)
            centre_crop(pixels, cropped, odd_before=self.backend == "pil")
            pixels = cropped
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        if self.backend == "pil":
            return as_pillow(planes, now)
        return as_torch(torch.from_numpy(planes), now)

    def _resize(self, pixels: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
        if self.backend == "pil":
            return resize_pillow(pixels, size, resample)
        return (resize if pixels.dtype == np.uint8 else resize_floats)(pixels, size, resample)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """From a hub id, a folder, or a `preprocessor_config.json`.

        `options` are where to look (revision, subfolder, cache_dir, token, local_files_only, force_download), the
        `backend`, and fields that replace the file's. timm's checkpoints say theirs in `config.json`. Raises
        CheckpointError when there is neither.
        """
        where, fields = Where.split(options)
        path = local_path(checkpoint := pretrained_model_name_or_path)
        if path.is_file():
            return cls.from_dict(read_json(path), **fields)
        config, values = read_descriptions(checkpoint, where)
        if values is None and "architecture" in (config or {}):
            side = (config.get("pretrained_cfg") or config).get("input_size", [3, 224, 224])[-1]
            values = Preprocessing.read_timm(config, side).to_dict()
        if values is None:
            raise CheckpointError(f"checkpoint {checkpoint} has no preprocessor_config.json")
        return cls.from_dict(values, **fields)

    def save_pretrained(self, save_directory: str | Path) -> list[str]:
        """Write `preprocessor_config.json`, which transformers also loads, into this folder (made if missing).

        Returns the names of the files: this one.
        """
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        self.to_json_file(Path(save_directory, FILE))
        return [str(Path(save_directory, FILE))]

    @classmethod
    def from_dict(cls, image_processor_dict: dict[str, Any], **fields: Any) -> Self:
        """From the values of a `preprocessor_config.json`; keys that are not a LeViT processor's are ignored."""
        known = (FIELDS | OPTIONS.keys()) & image_processor_dict.keys()
        steps = {name: image_processor_dict[name] for name in known}
        return cls(**{name: value for name, value in steps.items() if value is not None or name in STEPS} | fields)

    @classmethod
    def from_json_file(cls, json_file: str | Path) -> Self:
        return cls.from_pretrained(Path(json_file))

    def to_dict(self) -> dict[str, Any]:
        """Every field, as `preprocessor_config.json` holds them, and each option that is not as usual."""
        options = {name: getattr(self, name) for name, usual in OPTIONS.items() if getattr(self, name) != usual}
        return self.preprocessing.to_dict() | options

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2, sort_keys=True, default=str) + "\n"

    def to_json_file(self, json_file_path: str | Path) -> None:
        Path(json_file_path).write_text(self.to_json_string())

    def __repr__(self) -> str:
        return f"{type(self).__name__}(backend={self.backend!r}) {self.to_json_string()}"


class LevitFeatureExtractor(LevitImageProcessor):
    """The old name of `LevitImageProcessor`."""
