"""What tells copies: imagehash's values, and those of a file's bytes."""

import json
from pathlib import Path

import numpy as np
import pytest
import xxhash
from PIL import Image

from levit_batch.pixels.decode import decode
from levit_batch.pixels.hashes import content_hash, perceptual_hash
from tests.golden.phash_images import NAME, images
from tests.support.images import CHINA, FLOWER, encode

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / NAME).read_text())


def hexadecimal(number: int) -> str:
    return f"{number % 2**64:016x}"


def apart(one: int, other: int) -> int:
    return ((one ^ other) % 2**64).bit_count()


def test_it_is_imagehashs():
    ours = {name: hexadecimal(perceptual_hash(np.asarray(image.convert("RGB")))) for name, image in images().items()}
    assert ours == {name: value for name, value in GOLDEN.items() if name != "made with"} and len(ours) > 150


@pytest.mark.parametrize("value", [0, 77, 255])
def test_what_has_no_structure_has_no_bits_of_chance(value):
    flat = np.full((50, 70, 3), value, np.uint8)
    assert hexadecimal(perceptual_hash(flat)) == ("0000000000000000" if value == 0 else "8000000000000000")


@pytest.mark.parametrize("photograph", [CHINA, FLOWER])
def test_copies_are_near_and_others_are_not(photograph):
    of = perceptual_hash(np.asarray(photograph))
    copies = [encode(photograph, quality=40), encode(photograph, "WEBP"), encode(photograph.resize((213, 142)), "PNG")]
    assert max(apart(of, perceptual_hash(decode(copy, max_pixels=10**6))) for copy in copies) <= 4
    assert apart(of, perceptual_hash(np.asarray((CHINA, FLOWER)[photograph is CHINA]))) > 20
    assert apart(of, perceptual_hash(np.asarray(photograph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)))) > 10


def test_content_is_that_of_any_buffer():
    data = encode(CHINA)
    assert content_hash(data) == content_hash(memoryview(data)) == f"{xxhash.xxh3_128_intdigest(data):032x}"
    assert content_hash(data[:-1]) != content_hash(data) and len(content_hash(b"")) == 32
