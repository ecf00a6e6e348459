"""Whatever a caller calls an image -> RGB arrays, for `processor.py`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from levit_batch.pixels.modes import to_rgb

ImageLike = Image.Image | np.ndarray | torch.Tensor
CHANNELS = (1, 3, 4)
FIRST, LAST = "channels_first", "channels_last"


def as_list(images: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    """One image, an array or tensor of four dimensions, or a list of these or of lists of them -> a list.

    Raises ValueError when there is none, TypeError for what is no image.
    """
    flat = _flat(images)
    if not flat:
        raise ValueError("there are no images to process: the list is empty")
    return flat


def _flat(images: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    if isinstance(images, list | tuple):
        return [image for part in images for image in _flat(part)]
    if isinstance(images, np.ndarray | torch.Tensor) and images.ndim == 4:
        return list(images)
    if isinstance(images, str | Path):
        raise TypeError(f"an image must be opened first (PIL.Image.open), got the name {str(images)!r}")
    return [images]


def as_rgb(image: ImageLike, input_data_format: str | None = None, convert: bool = True) -> np.ndarray:
    """One image -> [H, W, 3], uint8, or float32 where it came as floats.

    A PIL image of any mode is turned upright by its EXIF orientation and converted as `modes.to_rgb` says. An array or
    tensor is [H, W] grey or has 1 (grey), 2 (grey, alpha), 3 or 4 (RGB, alpha) channels, first or last as
    `input_data_format` says; without it, as transformers decides: first if that fits. Integers are 0..255, of uint16
    the high byte is kept, True is white. Raises TypeError and ValueError for anything else; without `convert` also for
    all that is not RGB as it comes.
    """
    if isinstance(image, Image.Image) and not (convert or image.mode == "RGB"):
        raise ValueError(f"the image is {image.mode}, not RGB, and do_convert_rgb is False")
    if isinstance(image, Image.Image):
        return to_rgb(_upright(image))
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
    if not isinstance(image, np.ndarray):
        raise TypeError(f"an image must be a PIL image, a numpy array or a torch tensor, not {type(image).__name__}")
    array = _channels_last(image, input_data_format)
    if 0 in array.shape:
        raise ValueError(f"an image needs at least one pixel; got shape {array.shape}")
    if not convert and array.shape[2] != 3:
        raise ValueError(f"the image has {array.shape[2]} channels, not 3, and do_convert_rgb is False")
    return _colours(_to_bytes(array))


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a damaged EXIF block is no reason to refuse the pixels
        return image


def _channels_last(array: np.ndarray, input_data_format: str | None) -> np.ndarray:
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim != 3 or input_data_format not in (None, FIRST, LAST):
        raise ValueError(
            f"an image array has 2 or 3 dimensions and is {FIRST} or {LAST}; got {array.shape}, {input_data_format}"
        )
    first = array.shape[0] in CHANNELS if input_data_format is None else input_data_format == FIRST
    array = array.transpose(1, 2, 0) if first else array
    if array.shape[2] not in (*CHANNELS, 2):
        raise ValueError(f"an image array has 1 to 4 channels, first or last; got shape {array.shape}")
    return array


def _to_bytes(array: np.ndarray) -> np.ndarray:
    """uint8 or float32."""
    if array.dtype == np.uint8:
        return array
    if np.issubdtype(array.dtype, np.floating):
        return array.astype(np.float32)
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.min(initial=0) < 0 or array.max(initial=0) > 255:
        raise ValueError(f"integer pixels must be 0 to 255, got {array.min()} to {array.max()} ({array.dtype})")
    return array.astype(np.uint8)


def _colours(array: np.ndarray) -> np.ndarray:
    """Grey and transparent images -> [H, W, 3]; transparency is laid over white."""
    channels = array.shape[2]
    if channels in (2, 4) and array.dtype == np.uint8:
        return to_rgb(Image.fromarray(np.ascontiguousarray(array), "LA" if channels == 2 else "RGBA"))
    if channels in (2, 4):
        alpha = array[:, :, -1:]
        array = array[:, :, :-1] * alpha + (1 - alpha)
    # Writable, or torch warns about the array that it only reads.
    return np.require(np.broadcast_to(array, (*array.shape[:2], 3)), requirements=["C", "W"])
