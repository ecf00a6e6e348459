"""Encoded bytes -> RGB pixels, or the reason why there are none. No torch here: the isolating child imports this.

JPEG goes through simplejpeg (libjpeg-turbo), set so that it gives Pillow's pixels bit for bit in less time; Pillow
opens every other format and settles every JPEG that simplejpeg doubts.
"""

import io
import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageFile, UnidentifiedImageError

from levit_batch.errors import RowError, brief
from levit_batch.pixels.modes import to_rgb

Encoded = bytes | bytearray | memoryview

ORIENTATION = 0x0112
# What each EXIF orientation needs so that the image stands upright; the pixels are [H, W, 3].
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p[::-1].swapaxes(0, 1),
    7: lambda p: p[::-1, ::-1].swapaxes(0, 1),
    8: lambda p: p[:, ::-1].swapaxes(0, 1),
}
# Page description and stub formats: they start other programs or hold no pixels.
REFUSED_FORMATS = {"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"}
CUT_SHORT = re.compile(r"premature end|truncated|unexpected end|not enough|too short", re.IGNORECASE)


class Decoded(NamedTuple):
    """RGB pixels, uint8 [h, w, 3], C-contiguous, and the (height, width) of the image that they may be a fraction of."""

    pixels: np.ndarray
    size: tuple[int, int]


def decode(data: Encoded, *, max_pixels: int) -> np.ndarray:
    """Encoded image -> RGB pixels, uint8 [H, W, 3], C-contiguous, upright (EXIF orientation applied).

    `max_pixels` is checked against the header, before pixels are allocated. Transparency is laid over white, 16-bit
    and floating point values are scaled to 8 bits (`modes.to_rgb` says how), of an animation the first frame is taken.

    Raises RowError of kind `empty`, `decode`, `truncated`, `bomb` or `crashed` (not enough memory).
    """
    return decode_for(data, max_pixels=max_pixels).pixels


def decode_for(data: Encoded, *, max_pixels: int, least_edge: int = 0) -> Decoded:
    """As `decode`, but with `least_edge` a large JPEG is decoded at 1/2, 1/4 or 1/8 of its size, no edge shorter than
    that: less time, other pixels."""
    if len(data) == 0:
        raise RowError("empty: the image has zero bytes")
    try:
        decoded = _decode_jpeg(data, max_pixels, least_edge) if bytes(data[:2]) == b"\xff\xd8" else None
        return decoded or _decode_pillow(data, max_pixels)
    except MemoryError:
        raise RowError("crashed: decoding needs more memory than there is") from None


def _decode_jpeg(data: Encoded, max_pixels: int, least_edge: int) -> Decoded | None:
    """None where Pillow has to decide."""
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError:
        return None
    _refuse_bomb(width, height, max_pixels)
    if colorspace in ("CMYK", "YCCK"):  # Pillow's conversion to RGB is the reference
        _refuse_cut_short(data)
        return None
    try:
        pixels = simplejpeg.decode_jpeg(
            data, "RGB", fastdct=False, fastupsample=False, **_fraction(height, width, least_edge)
        )
    except ValueError as error:
        _raise_if_cut_short(error)
        return None
    return _upright(pixels, (height, width), _jpeg_orientation(data))


def _fraction(height: int, width: int, least_edge: int) -> dict[str, int]:
    """simplejpeg's words for 1/2, 1/4 or 1/8. The fractions between, libjpeg's 3/8 say, are slower and shift pixels."""
    for factor in (8, 4, 2) if least_edge else ():
        if min(height, width) >= factor * least_edge:
            return {"min_height": -(-height // factor), "min_width": -(-width // factor), "min_factor": factor}
    return {}


def _refuse_cut_short(data: Encoded) -> None:
    """Pillow fills what is missing from a JPEG with grey when an end marker follows; libjpeg's warning tells."""
    try:
        simplejpeg.decode_jpeg(data, "CMYK")
    except ValueError as error:
        _raise_if_cut_short(error)


def _raise_if_cut_short(error: ValueError) -> None:
    if CUT_SHORT.search(str(error)):
        raise RowError(f"truncated: the JPEG ends before its pixels do ({error})") from None


def _jpeg_orientation(data: Encoded) -> int:
    """EXIF (or XMP) orientation 1-8. Pillow reads it, so that both decoders agree; most files need no look."""
    if not any(_may_rotate(segment) for segment in _app1_segments(data)):
        return 1
    return _orientation(lambda: _open(data))


def _may_rotate(segment: bytes) -> bool:
    return b"\x01\x12" in segment or b"\x12\x01" in segment or b"rientation" in segment


def _app1_segments(data: Encoded) -> Iterator[bytes]:
    """The APP1 (EXIF, XMP) segments in front of a JPEG's first scan."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        if data[at + 1] == 0xFF:  # fill byte
            at += 1
            continue
        length = data[at + 2] << 8 | data[at + 3]
        if data[at + 1] == 0xE1:
            yield bytes(data[at + 4 : at + 2 + length])
        at += 2 + length


def _orientation(opened: Callable[[], Image.Image]) -> int:
    """EXIF orientation 1-8; a damaged EXIF block is no reason to lose the image."""
    try:
        return int(opened().getexif().get(ORIENTATION, 1))
    except Exception:
        return 1


def _upright(pixels: np.ndarray, size: tuple[int, int], orientation: int) -> Decoded:
    turn = UPRIGHT.get(orientation)
    if turn is None:
        return Decoded(pixels, size)
    return Decoded(np.ascontiguousarray(turn(pixels)), size if orientation < 5 else size[::-1])


def _decode_pillow(data: Encoded, max_pixels: int) -> Decoded:
    """Whatever Pillow can open. Its plugins raise nearly every exception there is on hostile bytes."""
    try:
        with _open(data) as image:
            _refuse_bomb(*image.size, max_pixels)
            image.load()  # before the EXIF is read, which may load too and would swallow the damage that this finds
            orientation = _orientation(lambda: image) if image.format != "TIFF" else 1  # Pillow turns TIFF by itself
            pixels = to_rgb(image)
            return _upright(pixels, pixels.shape[:2], orientation)
    except (RowError, MemoryError):
        raise
    except Exception as error:
        raise RowError(f"{_kind(data, error)}: {brief(error, 200)}") from None


def _open(data: Encoded) -> ImageFile.ImageFile:
    """`PIL.Image.open` without its process-wide pixel limit, its warnings and the formats nobody should label.

    Plugins register in `Image.OPEN`; Pillow's own limit would otherwise overrule a larger `max_pixels`.
    """
    stream = io.BytesIO(data)
    prefix = bytes(data[:16])
    tried: set[str] = set()
    damage = "not an image in a format that is read here"
    for load_plugins in (Image.preinit, Image.init):
        load_plugins()
        for name in [name for name in Image.ID if name not in tried | REFUSED_FORMATS]:
            tried.add(name)
            factory, accept = Image.OPEN[name]
            accepted = False
            try:
                accepted = accept is None or accept(prefix)
                if accepted and not isinstance(accepted, str):  # a string is Pillow's advice to install a plugin
                    stream.seek(0)
                    return factory(stream, "")
            except (SyntaxError, IndexError, TypeError, struct.error) as error:
                damage = f"damaged {name} header: {brief(error, 200)}" if accept and accepted else damage
    raise UnidentifiedImageError(f"{damage} (starts with {prefix!r})")


def _refuse_bomb(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise RowError(f"bomb: {width}x{height} pixels, source.max_image_pixels allows {max_pixels}")


def _kind(data: Encoded, error: Exception) -> str:
    head = bytes(data[:12])
    cut_webp = head[:4] == b"RIFF" and int.from_bytes(head[4:8], "little") + 8 > len(data)
    cut_jpeg = head[:3] == b"\xff\xd8\xff" and b"\xff\xd9" not in bytes(data[-4096:])
    return "truncated" if cut_webp or cut_jpeg or CUT_SHORT.search(str(error)) else "decode"
