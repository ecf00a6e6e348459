"""Pairs of near hashes: all of them, as comparing every two finds them."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from levit_batch.pixels.decode import decode
from levit_batch.pixels.hashes import perceptual_hash
from levit_batch.results.near import hashes as module
from levit_batch.results.near.hashes import MIRRORED, ODD, SAME, bit_count, groups, look_alikes
from tests.support.images import CHINA, FLOWER, encode


def planted(n: int, seed: int) -> np.ndarray:
    """uint64 [n] with equal ones and, up to 7 bits apart, near ones, of which some are mirrored."""
    random = np.random.default_rng(seed)
    made = random.integers(0, 2**64, n, dtype=np.uint64)
    for i in range(n // 2, n):
        made[i] = made[random.integers(i)] ^ (ODD if random.random() < 0.3 else np.uint64(0))
        for bit in random.choice(64, random.integers(8), replace=False):
            made[i] ^= np.uint64(1 << int(bit))
    return made


@pytest.mark.parametrize("many", [module.MANY, 3])
@pytest.mark.parametrize("seed", range(3))
def test_it_links_what_comparing_every_two_links(seed, many, monkeypatch):
    monkeypatch.setattr(module, "MANY", many)
    made = planted(400, seed)
    plain, mirrored = bit_count(made[:, None] ^ made[None]), bit_count(made[:, None] ^ made[None] ^ ODD)
    first, second = np.nonzero((plain <= SAME) | (mirrored <= MIRRORED))
    expected = groups(first, second, len(made))
    assert groups(*look_alikes(made.view(np.int64)), len(made)).tolist() == expected.tolist()
    assert 50 < len(set(expected.tolist())) < 380


def test_bits_are_counted():
    numbers = np.random.default_rng(0).integers(0, 2**64, 1000, dtype=np.uint64)
    numbers = np.concatenate([numbers, np.array([0, 2**64 - 1, 1, 2**63], np.uint64)])
    assert bit_count(numbers).tolist() == [int(number).bit_count() for number in numbers]


def test_nothing_is_like_nothing():
    assert [part.tolist() for part in look_alikes(np.empty(0, np.int64))] == [[], []]
    assert [part.tolist() for part in look_alikes(np.array([5]))] == [[], []]


COPIES = {
    "re-encoded": lambda image: encode(image, quality=60),
    "resized": lambda image: encode(image.resize((image.width * 3 // 2, image.height * 3 // 2), Image.Resampling.BICUBIC), "PNG"),
    "mirrored": lambda image: encode(ImageOps.mirror(image), quality=85),
    "cropped": lambda image: encode(ImageOps.crop(image, image.width // 20)),
}


@pytest.mark.parametrize(("size", "least"), [(210, (1, 1, 0.7)), (105, (0.7, 0.7, 0.5))])
def test_copies_of_photographs(size, least):
    """Parts of two photographs that share no pixel, a copy of each kind of each: which are linked, and what else is."""
    parts = [
        photograph.crop((left, top, left + size, top + size)) for photograph in (CHINA, FLOWER)
        for top in range(0, 427 - size, size) for left in range(0, 640 - size, size)
    ]  # fmt: skip
    encoded = [*map(encode, parts), *(copy(part) for copy in COPIES.values() for part in parts)]
    hashes = np.array([perceptual_hash(decode(data, max_pixels=10**6)) for data in encoded])
    group = groups(*look_alikes(hashes), len(hashes)).reshape(-1, len(parts))
    found = {kind: (copies == group[0]).mean() for kind, copies in zip(COPIES, group[1:], strict=True)}
    print(f"of {len(parts)} each: {found}")
    assert len(set(group[0].tolist())) == len(parts), "no part is linked with another"
    assert all(share >= floor for share, floor in zip(found.values(), least, strict=False))
