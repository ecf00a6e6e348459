"""How fast each stage of a job is on this machine, with the job's own images: one core, or one GPU for the model."""

import dataclasses
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from levit_batch.errors import LevitBatchError, RowError, SourceError
from levit_batch.inference.backends.choose import FASTEST_FIRST, Runtime, make_runtime, why_not
from levit_batch.inference.fold import fold
from levit_batch.inference.runnable import make_runnable
from levit_batch.job.chunks import Chunk
from levit_batch.job.config import OutputConfig
from levit_batch.job.row import IMAGE_BYTES
from levit_batch.pixels.preprocess import Preprocessor
from levit_batch.table.output import Output
from pipelines.label.decoder import Decoder
from pipelines.label.execute import make_work
from pipelines.label.prepare import Prepared
from pipelines.label.replica import Replica
from pipelines.label.work import Part

MODEL_IMAGES = 64
LEAST_SECONDS = 0.5  # of each measurement of a model
PEAK = {"float32": 1024, "bfloat16": 2048}  # edge of the matrices whose product gives a core's peak


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
    whole = dataclasses.replace(prepared.chunks[0], first=0, stop=rows, staged=False)
    sample = Sample(whole, tables, time.perf_counter() - since)
    if not sample.images:
        raise SourceError(f"source.path: the first {rows} rows hold no image to measure with")
    return sample


def stages(prepared: Prepared, sample: Sample) -> dict[str, float]:
    """Milliseconds an image of each stage and of all together, as one replica goes through them."""
    each = 1000 / sample.rows
    images, source = sample.images, prepared.config.source
    preprocess = Preprocessor(prepared.checkpoint.processor, prepared.config.preprocess.mode, source.max_image_pixels)
    decoding = seconds(lambda: [_decoded(image, preprocess) for image in images])
    both = seconds(lambda: preprocess(images))
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
    """Seconds by stage, and in all, of a replica that labels the sample into a folder that is deleted again."""
    with tempfile.TemporaryDirectory() as folder:
        output = Output(OutputConfig(path=folder, format=prepared.output.format))
        work = dataclasses.replace(make_work(prepared, "bench", True), source=sample, output=output)
        replica = Replica(work, prepared.runnable)
        replica.label(sample.chunk)  # warms up: the check of the backend, caches, lazy imports
        since = time.perf_counter()
        record = replica.label(sample.chunk)
        return record["seconds"], time.perf_counter() - since


def models(prepared: Prepared, sample: Sample, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Images a second of every backend, dtype and batch that can run here; `error` where one gives wrong results."""
    config, gpu = prepared.config, prepared.gpu
    folded = fold(prepared.checkpoint.model, config.model.heads, prepared.checkpoint.processor)
    decoder = Decoder(dataclasses.replace(make_work(prepared, "bench", True), source=sample))
    part = Part(sample.chunk, attempt=1, started=time.time())
    pixels = np.concatenate(list(decoder.batches(part, sample.tables)))[:MODEL_IMAGES]
    dtypes = dict.fromkeys([prepared.dtype, "float32", "float16" if gpu else "bfloat16"])
    own = make_runtime(config.model, gpu, "float32", config.compute.batch_size).batch
    sizes = dict.fromkeys([own, 32])
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
        repeat = -(-runtime.batch // len(pixels))
        given = np.concatenate([pixels] * repeat)[: max(runtime.batch, len(pixels) // runtime.batch * runtime.batch)]
        return {"images_per_second": len(given) / seconds(lambda: run(given), LEAST_SECONDS), "error": None}
    except LevitBatchError as e:
        return {"images_per_second": None, "error": str(e)}


def peak_macs(dtype: str) -> float:
    """Multiply-adds a second that one core (or the GPU) reaches in a large matrix product of `dtype`."""
    kind = getattr(torch, dtype)
    gpu, edge = torch.cuda.is_available(), PEAK.get(dtype, 1024)
    one, other = (torch.randn(edge, edge, device="cuda" if gpu else "cpu").to(kind) for _ in range(2))
    if not gpu and kind == torch.float32 and torch.backends.mkldnn.is_available():
        from levit_batch.inference.fast_linear import FastLinear

        linear = FastLinear(edge, edge).requires_grad_(False)  # the same kernel as the model's, not MKL's
        return edge**3 / seconds(lambda: linear(one), LEAST_SECONDS)

    def multiply() -> None:
        one @ other
        if gpu:
            torch.cuda.synchronize()

    return edge**3 / seconds(multiply, LEAST_SECONDS)


def seconds(work: Callable[[], Any], least: float = 0.0) -> float:
    """The median time of `work`, called once before, then at least three times and `least` seconds."""
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < least:
        since = time.perf_counter()
        work()
        times.append(time.perf_counter() - since)
    return float(np.median(times))
