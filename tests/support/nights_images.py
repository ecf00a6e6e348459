"""Little images, no two alike, and what the model says of each: told apart by every row that is another's."""

import io
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from levit_batch.inference.backends.choose import make_runtime
from levit_batch.inference.fold import fold
from levit_batch.inference.predict import Answers, Predictor
from levit_batch.inference.runnable import make_runnable
from levit_batch.job.config import ModelConfig, PredictConfig
from levit_batch.levit.checkpoint import load_checkpoint
from levit_batch.pixels.preprocess import Preprocessor

BROKEN, NONE, MISSING = -1, -2, -3  # in place of an image's number: not an image, no image, a file that is not there
SIDE = 8
NOT_AN_IMAGE = b"not an image"


@lru_cache(4096)
def encoded(number: int) -> bytes:
    """The image with this number as a PNG; all have the same size."""
    random = np.random.default_rng(number)
    colours = random.integers(0, 256, (2, 2, 3)).repeat(SIDE // 2, 0).repeat(SIDE // 2, 1)
    pixels = np.clip(colours + random.integers(-40, 41, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", compress_level=0)
    return stream.getvalue()


def content(number: int) -> bytes | None:
    """What a source holds for an image's number."""
    return encoded(number) if number >= 0 else NOT_AN_IMAGE if number == BROKEN else None


class Model:
    """A checkpoint, loaded and folded once for all nights of this process."""

    def __init__(self, folder: Path):
        self.path = str(folder)
        self.config = ModelConfig(checkpoint=self.path, backend="torch")
        self.predict = PredictConfig(top_k=2)
        self.answers: dict[int, tuple[int, np.ndarray]] = {}

    @cached_property
    def checkpoint(self):
        return load_checkpoint(self.path, None)

    @cached_property
    def runnable(self):
        folded = fold(self.checkpoint.model, self.config.heads, self.checkpoint.processor)
        return make_runnable(folded, self.config, make_runtime(self.config, False, "float32", 8))

    @cached_property
    def predictor(self) -> Predictor:
        return Predictor(self.runnable.load(), self.predict)

    def answer(self, numbers: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Labels [N] and embeddings [N, D] of images, by their numbers."""
        if missing := sorted({number for number in numbers if number not in self.answers}):
            found = self._ask(missing)
            self.answers |= {n: (int(found.label[i]), found.embedding[i]) for i, n in enumerate(missing)}
        labels, embeddings = zip(*(self.answers[number] for number in numbers), strict=True)
        return np.array(labels), np.stack(embeddings)

    def _ask(self, numbers: list[int]) -> Answers:
        pixels, errors = Preprocessor(self.checkpoint.processor)([encoded(number) for number in numbers])
        assert not any(errors), errors
        return self.predictor.answers(*self.predictor([pixels]))
