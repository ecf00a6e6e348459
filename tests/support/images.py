"""Real photographs, encoded as a test needs them."""

import io

from PIL import Image
from sklearn.datasets import load_sample_image

CHINA = Image.fromarray(load_sample_image("china.jpg"))  # 640x427
FLOWER = Image.fromarray(load_sample_image("flower.jpg"))  # 640x427


def encode(image: Image.Image, form: str = "JPEG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()
