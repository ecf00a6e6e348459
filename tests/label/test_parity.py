"""End to end: encoded images to ranked names, against transformers' own image-classification pipeline."""

import io

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from levit_batch.inference.fold import fold
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.levit.processor import LevitImageProcessor
from levit_batch.levit.weights import imagenet_names
from levit_batch.pixels.preprocess import Preprocessor
from tests.support.models import photographs, shared_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("levit")
    shared_model("128S").save_pretrained(folder)
    config = load_checkpoint(str(folder)).config  # with ImageNet's names
    config.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def jpegs():
    return [jpeg(image, size) for image, size in zip(photographs(12, 320, seed=21), SIZES, strict=True)]


SIZES = [(320, 320), (500, 375), (375, 500), (100, 300), (256, 256), (1000, 300)] * 2


def jpeg(image, size):
    data = io.BytesIO()
    Image.fromarray(image).resize(size).save(data, "JPEG", quality=92)
    return data.getvalue()


@pytest.fixture(scope="module")
def expected(folder, jpegs):
    model = transformers.LevitForImageClassificationWithTeacher.from_pretrained(folder)
    processor = transformers.LevitImageProcessorPil.from_pretrained(folder)
    pipe = transformers.pipeline("image-classification", model=model, image_processor=processor, top_k=5)
    return pipe([Image.open(io.BytesIO(data)) for data in jpegs])


def ranked(logits):
    """As the pipeline answers: five (name, softmax score) an image."""
    scores, indices = logits.softmax(dim=1).topk(5)
    names = imagenet_names()
    return [[(names[i], float(s)) for i, s in zip(*pair, strict=True)] for pair in zip(indices, scores, strict=True)]


def test_the_same_five_names_and_scores(folder, jpegs, expected):
    processor = LevitImageProcessor.from_pretrained(str(folder), backend="pil")
    pixels = processor([Image.open(io.BytesIO(data)) for data in jpegs], return_tensors="pt").pixel_values
    with torch.no_grad():
        got = ranked(load_checkpoint(str(folder)).model(pixels).logits)
    for mine, theirs in zip(got, expected, strict=True):
        assert [name for name, _ in mine] == [answer["label"] for answer in theirs]
        np.testing.assert_allclose([s for _, s in mine], [answer["score"] for answer in theirs], rtol=1e-3)
    assert len({answers[0]["label"] for answers in expected}) > 4


def test_the_job_path_ranks_alike(folder, jpegs, expected):
    """What a job runs (torch's resize, uint8, the folded model) differs from Pillow's resize by up to two levels of 255."""
    checkpoint = load_checkpoint(str(folder))
    pixels, errors = Preprocessor(checkpoint.processor, "exact", max_pixels=10**7, timeout=60)(jpegs)
    assert errors == [None] * len(jpegs)
    with torch.no_grad():
        got = ranked(fold(checkpoint.model)(torch.tensor(pixels))[1])
    for mine, theirs in zip(got, expected, strict=True):
        assert mine[0][0] == theirs[0]["label"]
        assert mine[0][1] == pytest.approx(theirs[0]["score"], rel=0.05)
