"""How fast each stage of a job is on this machine, with the job's own images: one core, or one GPU for the model."""

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from levit_batch.errors import LevitBatchError, RowError, SourceError
from levit_batch.inference.backends.choose import FASTEST_FIRST, Runtime, make_runtime, why_not
from levit_batch.inference.fold import fold
from levit_batch.inference.runnable import make_runnable
from levit_batch.job.chunks import Chunk
from levit_batch.job.config import OutputConfig
from levit_batch.job.row import IMAGE_BYTES
from levit_batch.pixels.hashes import perceptual_hash
from levit_batch.pixels.preprocess import Preprocessor
from levit_batch.table.output import Output
from pipelines.bench import peak
from pipelines.bench.peak import seconds
from pipelines.label.decoder import Decoder
from pipelines.label.execute import make_work
from pipelines.label.prepare import Prepared
from pipelines.label.replica import DecodeTask, Replica
from pipelines.label.work import Part, unpack

MODEL_IMAGES = 64
OTHER_BATCH, OTHER_GPU_BATCH = 32, 1024  # measured beside the job's own
LEAST_BATCHES = 4  # on a GPU, where one computes while the next is on its way


@dataclasses.dataclass
class Sample:
    """The first rows of the plan, in memory, and what it took to read them. Reads like a source."""

    chunk: Chunk
    tables: list[pa.Table]
    seconds: float

    @property
    def rows(self) -> int:
        return sum(table.num_rows for table in self.tables)

    @property
    def images(self) -> list[bytes]:
        return [image for table in self.tables for image in table[IMAGE_BYTES].to_pylist() if image is not None]

    def read(self, chunk: Chunk) -> Iterator[pa.Table]:
        yield from self.tables


def take_sample(prepared: Prepared, images: int) -> Sample:
    """The first `images` rows of the plan. Raises SourceError when they hold no image."""
    tables, rows, since = [], 0, time.perf_counter()
    for chunk in prepared.chunks:
        for table in prepared.source.read(chunk):
            tables.append(table.slice(0, images - rows))
            rows += tables[-1].num_rows
            if rows >= images:
                break
        if rows >= images:
            break
    whole = dataclasses.replace(next(iter(prepared.chunks)), first=0, stop=rows, staged=False)
    sample = Sample(whole, tables, time.perf_counter() - since)
    if not sample.images:
        raise SourceError(f"source.path: the first {rows} rows hold no image to measure with")
    return sample


def enough(prepared: Prepared, images: int) -> int:
    """`images`, or more where that is too few to tell."""
    return max(images, LEAST_BATCHES * prepared.runnable.runtime.batch) if prepared.gpu else images


def stages(prepared: Prepared, sample: Sample) -> dict[str, float]:
    """Milliseconds an image of each stage, and of all together where one replica goes through them one after the other."""
    each = 1000 / sample.rows
    images, source = sample.images, prepared.config.source
    preprocess = Preprocessor(prepared.checkpoint.processor, prepared.config.preprocess.mode, source.max_image_pixels)
    decoding = seconds(lambda: [_decoded(image, preprocess) for image in images])
    hashed = (lambda _, pixels: perceptual_hash(pixels)) if prepared.config.predict.hash else None
    both = seconds(lambda: preprocess(images, hashed))
    spent, whole = label_sample(prepared, sample)
    return {
        "read": sample.seconds * each,
        "decode": decoding * each,
        "resize": max(0.0, both - decoding) * each,
        "model": spent["predict"] * each,
        "write": spent["write"] * each,
        "whole": (sample.seconds + whole) * each,
    }


def _decoded(image: bytes, preprocess: Preprocessor) -> None:
    try:
        preprocess.decode(image)
    except RowError:
        return


def label_sample(prepared: Prepared, sample: Sample) -> tuple[dict[str, float], float]:
    """Seconds by stage, and in all, of a replica that labels the sample into a folder that is deleted again.

    On a GPU it gets the pixels, as there, from memory.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Output(OutputConfig(path=folder, format=prepared.output.format))
        work = dataclasses.replace(make_work(prepared, "bench", True), source=sample, output=output)
        replica = Replica(work, prepared.runnable)
        decoded = DecodeTask(work).decode(sample.chunk) if prepared.gpu else None

        def label() -> dict[str, Any]:
            return replica.label(sample.chunk) if decoded is None else replica.finish_decoded(*unpack(decoded))

        label()  # warms up: the check of the backend, caches, lazy imports
        since = time.perf_counter()
        record = label()
        return record["seconds"], time.perf_counter() - since


def models(prepared: Prepared, sample: Sample, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Images a second of every backend, dtype and batch that can run here; `error` where one gives wrong results."""
    config, gpu = prepared.config, prepared.gpu
    folded = fold(prepared.checkpoint.model, config.model.heads, prepared.checkpoint.processor)
    decoder = Decoder(dataclasses.replace(make_work(prepared, "bench", True), source=sample))
    part = Part(sample.chunk, time.time())
    pixels = np.concatenate(list(decoder.batches(part, sample.tables)))[:MODEL_IMAGES]
    dtypes = dict.fromkeys([prepared.dtype, "float32", "float16" if gpu else "bfloat16"])
    own = make_runtime(config.model, gpu, "float32", config.compute.batch_size).batch
    sizes = dict.fromkeys([own, OTHER_GPU_BATCH if gpu else OTHER_BATCH])
    rates = []
    for name, dtype, batch in itertools.product(FASTEST_FIRST, dtypes, sizes):
        if name != "torch" and batch != own:  # each would be an export of its own
            continue
        runtime = make_runtime(config.model, gpu, dtype, batch)
        if why_not(name, runtime) is None:
            say(f"measuring {name}, {dtype}, batch {batch}")
            result = _rate(name, folded, runtime, prepared, pixels)
            rates.append({"backend": name, "dtype": dtype, "batch": batch} | result)
    return rates


def _rate(name: str, folded: Any, runtime: Runtime, prepared: Prepared, pixels: np.ndarray) -> dict[str, Any]:
    try:
        run = make_runnable(folded, prepared.config.model.model_copy(update={"backend": name}), runtime).load()
        least = runtime.batch * (LEAST_BATCHES if runtime.gpu else 1)
        given = np.concatenate([pixels] * -(-least // len(pixels)))[: max(least, len(pixels) // runtime.batch * runtime.batch)]
        return {"images_per_second": len(given) / seconds(lambda: run(given), peak.LEAST_SECONDS), "error": None}
    except LevitBatchError as e:
        return {"images_per_second": None, "error": str(e)}
