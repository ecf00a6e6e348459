"""Real photographs, encoded as a test needs them."""

import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_image

CHINA = Image.fromarray(load_sample_image("china.jpg"))  # 640x427
FLOWER = Image.fromarray(load_sample_image("flower.jpg"))  # 640x427


def encode(image: Image.Image, form: str = "JPEG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def photographs(count: int, width: int = 500, height: int = 375) -> list[bytes]:
    """JPEGs as found in ImageNet: 500x375 makes about 110 KB. Windows of the two photographs, enlarged if need be."""
    random = np.random.default_rng(0)
    images = []
    for number in range(count):
        source = (CHINA, FLOWER)[number % 2]
        scale = max(1, width / 560, height / 400)
        size = int(width / scale), int(height / scale)
        left, top = (int(random.integers(0, edge - have + 1)) for edge, have in zip(source.size, size, strict=True))
        window = source.crop((left, top, left + size[0], top + size[1]))
        images.append(encode(window.resize((width, height), Image.Resampling.LANCZOS), quality=97))
    return images
