"""Images of every format that Pillow opens, and damage to them: bytes changed, cut, doubled, swapped; sizes made huge."""

import io
import random
import struct
from functools import cache

import numpy as np
from PIL import Image

from tests.support.images import CHINA, FLOWER, encode

SIDE = 48
SMALL = CHINA.resize((SIDE, SIDE))
SAVED = ("AVIF", "BMP", "DDS", "DIB", "GIF", "ICNS", "ICO", "IM", "JPEG", "JPEG2000", "PCX", "PNG", "PPM", "QOI", "SGI", "SPIDER",
         "TGA", "TIFF", "WEBP")  # fmt: skip
WAYS = ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
EDGES = (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x80\0\0\0", b"\0\0\0\x80", b"\0\1\0\0")


@cache
def whole() -> dict[str, tuple[bytes, ...]]:
    """Small images by format, several where a format has several ways."""
    forms = {form: (encode(SMALL, form, **({"sizes": [(32, 32)]} if form in ("ICO", "ICNS") else {})),) for form in SAVED}
    grey, palette = SMALL.convert("L"), SMALL.convert("P")
    forms["BLP"] = (encode(palette, "BLP"),)
    forms["MSP"], forms["XBM"] = (encode(SMALL.convert("1"), "MSP"),), (encode(SMALL.convert("1"), "XBM"),)
    forms["JPEG"] += (encode(SMALL, progressive=True), encode(SMALL.convert("CMYK")), encode(grey), encode(SMALL, exif=_exif()))
    forms["PNG"] += (encode(palette, "PNG"), encode(SMALL.convert("RGBA"), "PNG"), encode(grey.convert("I;16"), "PNG"))
    forms["GIF"] += (encode(SMALL, "GIF", save_all=True, append_images=[FLOWER.resize((SIDE, SIDE))]),)
    forms["TIFF"] += tuple(encode(SMALL, "TIFF", compression=way) for way in WAYS)
    forms["WEBP"] += (encode(SMALL, "WEBP", lossless=True), encode(SMALL.convert("RGBA"), "WEBP"))
    forms["TGA"] += (encode(SMALL, "TGA", compression="tga_rle"),)
    return forms | _written_by_hand()


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    return exif.tobytes()


def _written_by_hand() -> dict[str, tuple[bytes, ...]]:
    """Formats that Pillow reads and does not write."""
    rgb, side = np.asarray(SMALL).tobytes(), SIDE
    ico = encode(SMALL, "ICO", sizes=[(32, 32)], bitmap_format="bmp")
    cards = ("SIMPLE  = T", "BITPIX  = 8", "NAXIS   = 2", f"NAXIS1  = {side}", f"NAXIS2  = {side}", "END")
    card = "".join(f"{line:<80}" for line in cards)
    pcx = encode(SMALL, "PCX")
    xpm = f'/* XPM */\nstatic char *x[] = {{\n"{side} {side} 2 1",\n"a c #ff0000",\n"b c #00ff00",\n'
    return {
        "CUR": (ico[:2] + b"\2\0" + ico[4:10] + b"\1\0\1\0" + ico[14:],),
        "DCX": (struct.pack("<3I", 0x3ADE68B1, 12, 0) + pcx,),
        "FITS": (card.ljust(2880).encode() + rgb[: side * side].ljust(2880, b"\0"),),
        "GBR": (struct.pack(">7I", 28, 2, side, side, 4, 0x47494D50, 10) + bytes(rgb + rgb[: side * side]),),
        "PSD": (b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, side, side, 8, 3) + bytes(12) + b"\0\0" + rgb,),
        "SUN": (struct.pack(">8I", 0x59A66A95, side, side, 24, len(rgb), 1, 0, 0) + rgb,),
        "XPM": ((xpm + ",\n".join('"' + "ab" * (side // 2) + '"' for _ in range(side)) + "\n};\n").encode(),),
        "XVTHUMB": (f"P7 332\n#END_OF_COMMENTS\n{side} {side} 255\n".encode() + rgb[: side * side],),
    }


def mutant(number: int) -> tuple[str, bytes]:
    """The format and the bytes of a mutant; the same for the same number."""
    chance = random.Random(number)
    forms = whole()
    form = list(forms)[number % len(forms)]
    data = bytearray(chance.choice(forms[form]))
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        _damage(data, chance, forms)
    return form, bytes(data)


def _damage(data: bytearray, chance: random.Random, forms: dict[str, tuple[bytes, ...]]) -> None:
    end = max(1, len(data))
    at = chance.randrange(min(end, chance.choice([32, 128, 512, end])))  # headers more often than pixels
    what = chance.randrange(7)
    if what == 0:
        for _ in range(chance.randint(1, 20)):
            data[at : at + 1] = bytes([chance.randrange(256)])
            at = chance.randrange(min(end, chance.choice([64, end])))
    elif what == 1:
        del data[chance.randrange(end) :]
    elif what == 2:
        data[at : at + 4] = chance.choice(EDGES)
    elif what == 3:
        data[at:at] = data[at : at + chance.randint(1, 64)] * chance.choice([1, 2, 50])
    elif what == 4:
        del data[at : at + chance.randint(1, 64)]
    elif what == 5:
        other = chance.choice(forms[chance.choice(list(forms))])
        data[at:] = other[chance.randrange(len(other)) :]
    else:
        data[at : at + chance.randint(1, 200)] = bytes(chance.randint(1, 200))


def opens(data: bytes) -> str:
    """What Pillow itself takes it for."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.format
