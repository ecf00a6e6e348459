"""Which size an image is resized to and what is cropped, by the values of `preprocessor_config.json`."""

from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image

from levit_batch.errors import CheckpointError


@dataclass(frozen=True)
class Geometry:
    """Where the pixels go. `edge` scales the shorter edge to that length; `size` is a fixed (height, width)."""

    edge: int | None
    size: tuple[int, int] | None
    crop: tuple[int, int] | None
    resample: Image.Resampling

    @classmethod
    def from_processor(cls, processor: Mapping) -> "Geometry":
        """From the values of a `preprocessor_config.json`. Raises CheckpointError for values that make no sense."""
        edge, size = _resize_target(processor["size"]) if processor["do_resize"] else (None, None)
        crop = _height_width(processor["crop_size"], "crop_size") if processor["do_center_crop"] else None
        try:
            return cls(edge, size, crop, Image.Resampling(processor["resample"]))
        except ValueError:
            raise CheckpointError(
                f"preprocessor_config.json: resample is {processor['resample']!r}; it must be a Pillow filter, 0 to 5"
            ) from None

    def output(self) -> tuple[int, int]:
        """(height, width) of every result. Raises CheckpointError where it would depend on the image."""
        if fixed := self.crop or self.size:
            return fixed
        raise CheckpointError(
            "preprocessor_config.json: images would come out in different sizes, and LeViT takes one; "
            "set do_center_crop with a crop_size, or do_resize with a size of height and width"
        )

    def resized(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) after the resize, before the crop."""
        if self.size:
            return self.size
        if self.edge is None:
            return height, width
        if width <= height:
            return int(self.edge * height / width), self.edge
        return self.edge, int(self.edge * width / height)

    def sharp_edge(self) -> int:
        """An image whose shorter edge has this many pixels resizes to nearly what the whole of it would (0: unknown).

        Half as long again as the result: the mean difference is then under 1 level of 255, and 3 at 1.0 times.
        """
        return int(1.5 * (max(self.size) if self.size else self.edge or 0))


def _resize_target(size: Mapping | int) -> tuple[int | None, tuple[int, int] | None]:
    """LeViT scales the shorter edge to 256/224 of what `size` says; a fixed size it leaves alone."""
    edge = size if isinstance(size, int) else size.get("shortest_edge") if isinstance(size, Mapping) else None
    if edge:
        return int((256 / 224) * edge), None
    return None, _height_width(size, "size")


def _height_width(size: object, field: str) -> tuple[int, int]:
    pair = (size.get("height"), size.get("width")) if isinstance(size, Mapping) else size
    pair = (pair, pair) if isinstance(pair, int) else tuple(pair)
    if len(pair) == 2 and all(isinstance(edge, int) and edge > 0 for edge in pair):
        return pair
    raise CheckpointError(f"preprocessor_config.json: {field} is {size!r}; it must be a number or a height and width")
