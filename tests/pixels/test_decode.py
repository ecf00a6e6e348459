"""Every kind of image becomes upright RGB; every kind of damage becomes an error of the right kind."""

import io
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps
from transformers.image_transforms import convert_to_rgb

from levit_batch.errors import RowError
from levit_batch.pixels.decode import decode, decode_for
from tests.support.images import CHINA, FLOWER, encode

LIMIT = 1_000_000
GREY = CHINA.convert("L")


def pixels(data) -> np.ndarray:
    return decode(data, max_pixels=LIMIT)


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def error(data, **options) -> str:
    with pytest.raises(RowError) as caught:
        decode(data, **{"max_pixels": LIMIT} | options)
    return str(caught.value)


JPEG_OPTIONS = [
    *[{"subsampling": subsampling} for subsampling in ("4:4:4", "4:2:2", "4:2:0", "4:1:1")],
    {"progressive": True},
    {"keep_rgb": True},
    {"quality": 5},
    {"quality": 100, "optimize": True},
    {"restart_marker_blocks": 7},
    {"icc_profile": b"x" * 70_000},
    {"comment": b"\xff\xe1" * 100},
]


@pytest.mark.parametrize("options", JPEG_OPTIONS, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_jpeg_equals_pillow_bit_for_bit(mode, options):
    random = np.random.default_rng(3)
    for width, height in [(1, 1), (8, 8), (17, 31), *random.integers(1, 300, (8, 2)).tolist()]:
        left, top = random.integers(0, 640 - width), random.integers(0, 427 - height)
        data = encode(FLOWER.crop((left, top, left + width, top + height)).convert(mode), **options)
        np.testing.assert_array_equal(pixels(data), np.asarray(opened(data).convert("RGB")))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "PA", "CMYK", "1", "YCbCr", "LAB"])
def test_modes_equal_transformers_conversion(mode):
    form = {"CMYK": "JPEG", "YCbCr": "TIFF", "LAB": "TIFF", "PA": "TIFF"}.get(mode, "PNG")
    source = CHINA.convert("RGB" if mode == "LAB" else mode) if mode != "PA" else CHINA.convert("P").convert("PA")
    if mode == "RGBA":
        source.putalpha(GREY)
    data = encode(source, form)
    try:
        opened(data).load()
    except OSError as e:
        pytest.skip(f"this Pillow does not read the {mode} {form} that it writes: {e}")
    np.testing.assert_array_equal(pixels(data), convert_to_rgb(opened(data), return_numpy=True))


def test_ycck_jpeg_is_left_to_pillow():
    data = bytearray(encode(CHINA.convert("CMYK")))
    adobe = data.index(b"Adobe")
    data[adobe + 11] = 2  # the transform that Photoshop writes
    np.testing.assert_array_equal(pixels(bytes(data)), np.asarray(opened(bytes(data)).convert("RGB")))


def test_transparency_is_laid_over_white():
    image = Image.new("RGBA", (4, 1), (200, 100, 0, 0))
    image.putpixel((0, 0), (200, 100, 0, 255))
    image.putpixel((1, 0), (200, 100, 0, 128))
    assert pixels(encode(image, "PNG"))[0].tolist() == [[200, 100, 0], [227, 177, 127], [255] * 3, [255] * 3]


def test_a_transparent_colour_is_laid_over_white():
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    for form in ("PNG", "GIF"):
        assert pixels(encode(palette, form, transparency=1))[0].tolist() == [[10, 20, 30], [255, 255, 255]]
    assert pixels(encode(Image.new("RGB", (1, 1), (7, 8, 9)), "PNG", transparency=(7, 8, 9))).tolist() == [[[255] * 3]]


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_high_byte(form):
    deep = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    assert pixels(encode(Image.fromarray(deep), form))[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_32_bit_values_are_scaled_and_never_clip_to_white():
    def grey(values, dtype):
        return pixels(encode(Image.fromarray(np.array([values], dtype)), "TIFF"))[0, :, 0].tolist()

    assert grey([0, 100, 255], np.int32) == [0, 100, 255]
    assert grey([0, 32768, 65535], np.int32) == [0, 128, 255]
    assert grey([0, 1 << 29, 1 << 30], np.int32) == [0, 128, 255]
    assert grey([0, 0.5, 1], np.float32) == [0, 128, 255]
    assert grey([0, 128, 255], np.float32) == [0, 128, 255]
    assert grey([-5, np.nan, 1000, 2000], np.float32) == [0, 0, 4, 8]
    assert grey([0, 0, 0], np.float32) == [0, 0, 0]
    signals = np.array([0x7F800001, 0], np.uint32).view(np.float32)  # a NaN that numpy warns of where it is cast
    with warnings.catch_warnings(action="error"):
        assert grey(signals, np.float32) == [0, 0]


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF", "AVIF", "MPO"])
def test_an_animation_gives_its_first_frame(form):
    first = CHINA.resize((64, 48))
    lossless = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}, "MPO": {"quality": 100}}.get(form, {})
    data = encode(first, form, save_all=True, append_images=[FLOWER.resize((64, 48))], **lossless)
    distance = np.abs(pixels(data).astype(int) - np.asarray(first)).mean()
    assert opened(data).n_frames == 2 and distance < 12


@pytest.mark.parametrize("form", ["BMP", "JPEG2000", "PPM", "ICO", "TGA", "QOI", "DDS", "PCX", "SGI"])
def test_rarer_formats(form):
    image = CHINA.resize((64, 64))
    options = {"sizes": [(64, 64)]} if form == "ICO" else {}
    data = encode(image, form, **options)
    expected = np.asarray(opened(data).convert("RGB")).astype(int)
    assert expected.shape[0] >= 64 and np.array_equal(pixels(data), expected)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "CMYK"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(form, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = CHINA.crop((0, 0, 48, 30))
    image, form = (image.convert("CMYK"), "JPEG") if form == "CMYK" else (image, form)
    data = encode(image, form, exif=exif)
    expected = ImageOps.exif_transpose(opened(data)).convert("RGB")
    assert expected.size == ((48, 30) if orientation < 5 else (30, 48))
    np.testing.assert_array_equal(pixels(data), np.asarray(expected))


def test_orientation_in_xmp_is_applied():
    packet = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    data = encode(CHINA)
    data = data[:2] + b"\xff\xe1" + (len(packet) + 2).to_bytes(2, "big") + packet + data[2:]
    expected = ImageOps.exif_transpose(opened(data))
    assert expected.size == (427, 640)
    np.testing.assert_array_equal(pixels(data), np.asarray(expected))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")  # pytest shows what `modes.py` keeps off the terminal
@pytest.mark.parametrize("block", [b"Exif\0\0", b"Exif\0\0\x01\x12garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01"])
def test_damaged_exif_loses_no_image(block):
    np.testing.assert_array_equal(pixels(encode(CHINA, exif=block)), pixels(encode(CHINA)))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_truncated_jpegs_are_errors_wherever_they_end(mode, progressive):
    data = encode(CHINA.convert(mode), progressive=progressive)
    for end in [4, 100, 300, 700, 2000, len(data) // 2, len(data) - 1000, len(data) - 3, len(data) - 1]:
        assert error(data[:end]).startswith("truncated: "), end


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_lacks_its_middle_is_never_labelled_grey(mode):
    """Pillow fills the missing rows with grey and says nothing."""
    data = encode(CHINA.convert(mode))
    cut = data[: len(data) // 2] + b"\xff\xd9"
    assert opened(cut).convert("RGB").size == CHINA.size
    assert error(cut).startswith("truncated: ")


def test_harmless_damage_is_left_to_pillow():
    data = encode(CHINA)
    for odd in (data[:-2] + b"\1\2\3" + data[-2:], data + b"trailing" * 50, b"\xff\xd8\xff\xff" + data[3:]):
        np.testing.assert_array_equal(pixels(odd), np.asarray(opened(odd).convert("RGB")))


@pytest.mark.parametrize("form", ["PNG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000"])
def test_other_truncated_formats_are_errors(form):
    data = encode(CHINA, form)
    assert error(data[: len(data) // 2]).split(":")[0] in ("truncated", "decode")


def test_bytes_that_are_no_image():
    assert error(b"").startswith("empty: ")
    for data in (
        b"\0",
        b"hello",
        b"<svg/>",
        b"%PDF-1.4",
        b"\x89PNG\r\n\x1a\n" + b"?" * 99,
        b"%!PS-Adobe-3.0 EPSF-3.0\n",
    ):
        message = error(data)
        assert message.startswith("decode: ") and "\n" not in message, message


@pytest.mark.filterwarnings("ignore")
def test_random_damage_never_escapes_as_another_exception():
    random = np.random.default_rng(5)
    whole = [encode(CHINA.resize((90, 60)), form) for form in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG2000")]
    failed = 0
    for number in range(700):
        data = bytearray(whole[number % 7])
        for _ in range(random.integers(1, 20)):
            data[random.integers(0, len(data))] = random.integers(0, 256)
        try:
            assert pixels(bytes(data)).dtype == np.uint8
        except RowError:
            failed += 1
    assert 50 < failed < 650


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_hostile_sizes_are_refused_from_the_header(form):
    data = encode(Image.new("RGB", (1001, 1000)), form)
    assert error(data) == "bomb: 1001x1000 pixels, source.max_image_pixels allows 1000000"
    assert decode(data, max_pixels=1_001_000).shape == (1000, 1001, 3)


def test_pillows_own_limit_neither_warns_nor_refuses(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pixels(encode(CHINA, "PNG")).shape == (427, 640, 3)


def test_nothing_is_printed_about_odd_files():
    """Pillow would warn about the EXIF block, the palette's transparency and the size."""
    code = """
import io, sys, threading
from PIL import Image
from levit_batch.pixels.decode import decode, decode_for
def encode(image, form, **options):
    stream = io.BytesIO(); image.save(stream, form, **options); return stream.getvalue()
bad_exif = b"Exif\\0\\0II*\\0\\x08\\0\\0\\0\\x03\\0\\x12\\x01"
palette = Image.new("P", (9, 9)); palette.putpalette([1, 2, 3] * 256)
images = [encode(Image.new("RGB", (9, 9)), "JPEG", exif=bad_exif), encode(palette, "PNG", transparency=b"\\0\\1\\2"),
          encode(Image.new("L", (10_000, 9_500)), "PNG"), encode(Image.new("RGB", (9, 9)), "TIFF")]
threads = [threading.Thread(target=decode, args=(data,), kwargs={"max_pixels": 10**9}) for data in images * 2]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_threads_do_not_disturb_each_other():
    images = [encode(CHINA), encode(CHINA.convert("RGBA"), "PNG"), encode(FLOWER, "WEBP")] * 4
    expected = [pixels(data) for data in images]
    results: list = [None] * len(images)

    def work(number: int) -> None:
        results[number] = pixels(images[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(images))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(np.array_equal(*pair) for pair in zip(results, expected, strict=True))


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_any_buffer_will_do(form):
    data = encode(CHINA, form)
    expected = pixels(data)
    for buffer in (bytearray(data), memoryview(data), memoryview(b"xx" + data)[2:]):
        np.testing.assert_array_equal(pixels(buffer), expected)


FRACTIONS = [
    ((1400, 2000), (700, 1000)),
    ((427, 640), (427, 640)),
    ((767, 900), (767, 900)),
    ((3073, 3333), (385, 417)),
]


@pytest.mark.parametrize("full, decoded", FRACTIONS)
def test_large_jpegs_can_be_decoded_at_a_fraction(full, decoded):
    data = encode(CHINA.resize(full[::-1]))
    small = decode_for(data, max_pixels=10**8, least_edge=384)
    assert (small.pixels.shape[:2], small.size) == (decoded, full)
    assert decode(data, max_pixels=10**8).shape[:2] == full


def test_a_fraction_is_turned_upright_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    small = decode_for(encode(CHINA, exif=exif), max_pixels=LIMIT, least_edge=200)
    assert (small.pixels.shape, small.size) == ((320, 214, 3), (640, 427))


def test_truncated_images_stay_errors_whatever_pillow_was_told(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert error(encode(CHINA)[:5000]).startswith("truncated: ")
