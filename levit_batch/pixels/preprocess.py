"""Encoded images -> one array of uint8 pixels that the model takes, with an error in the place of every bad image."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from levit_batch.errors import RowError
from levit_batch.pixels.decode import Decoded, Encoded, decode_for
from levit_batch.pixels.fit import fit
from levit_batch.pixels.preprocessing import Preprocessing
from levit_batch.pixels.watchdog import Watchdog


class Preprocessor:
    """Decode, resize and centre crop as the checkpoint's image processor does; rescale and normalise are the model's.

    `processor` holds the fields of `preprocessor_config.json`. In mode `exact` the pixels equal transformers'
    torch-backed `LevitImageProcessor` bit for bit; `fast` decodes large JPEGs at a fraction of their size. An image of
    more than `max_pixels` is an error. A decode that hangs for `timeout` seconds ends the process: only that stops C
    code. Use it from one thread of a process at a time, since the timer is one per process.
    """

    def __init__(self, processor: Mapping, mode: str = "exact", max_pixels: int = 178_956_970, timeout: float = 60.0):
        self.preprocessing = Preprocessing.read(processor)
        self.size = self.preprocessing.output()
        self.least_edge = self.preprocessing.sharp_edge() if mode == "fast" else 0
        self.max_pixels = max_pixels
        self.timeout = timeout

    def __call__(
        self, images: Sequence[Encoded | None], seen: Callable[[int, np.ndarray], None] | None = None
    ) -> tuple[np.ndarray, list[str | None]]:
        """N encoded images -> (pixels uint8 [N, H, W, 3], errors).

        `errors[i]` is None, or "kind: message" of one of `errors.ROW_ERROR_KINDS`, and then `pixels[i]` is zero.
        seen: called with i and the pixels uint8 [h, w, 3] as they were decoded, of each image without an error.
        """
        pixels = np.empty((len(images), *self.size, 3), np.uint8)
        with self.watchdog() as watchdog:
            errors = []
            for data, row in zip(images, pixels, strict=True):
                errors.append(self._one(data, row, watchdog, seen and partial(seen, len(errors))))
        return pixels, errors

    def watchdog(self) -> Watchdog:
        return Watchdog(self.timeout)

    def _one(self, data: Encoded | None, out: np.ndarray, watchdog: Watchdog, seen: Callable | None) -> str | None:
        watchdog.pat()
        try:
            pixels, size = self.decode(data)
            fit(pixels, self.preprocessing, self.max_pixels, out, size)
            if seen:
                seen(pixels)
        except RowError as error:
            out[:] = 0
            return str(error)
        return None

    def decode(self, data: Encoded | None) -> Decoded:
        """One encoded image -> pixels before the resize. Raises RowError."""
        if data is None:
            raise RowError("null: the image is null")
        return decode_for(as_buffer(data), max_pixels=self.max_pixels, least_edge=self.least_edge)


def as_buffer(data: object) -> Encoded:
    """Bytes as they are; any other buffer (pyarrow's, numpy's) as a memoryview, without a copy."""
    return data if isinstance(data, bytes) else memoryview(data).cast("B")
