"""The GPU's half of the torch backend, on a CPU that stands in for one (tests/support/pretend_gpu.py): no GPU was at hand."""

import contextlib
import dataclasses
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from levit_batch.errors import ConfigError, DeviceLostError, JobError
from levit_batch.inference.backends import torch_backend
from levit_batch.inference.backends.choose import Runtime
from levit_batch.inference.backends.torch_backend import DeviceModel, load
from levit_batch.inference.fold import fold
from levit_batch.inference.runnable import make_runnable
from levit_batch.job.config import ModelConfig
from tests.support.models import TINY, photographs, signal_model
from tests.support.pretend_gpu import stand_in

FLOAT32 = Runtime(gpu=True, dtype="float32", batch=64, compile=False)
FLAGS = ("allow_tf32", "allow_fp16_reduced_precision_reduction", "allow_bf16_reduced_precision_reduction")


@pytest.fixture(scope="module")
def folded():
    return fold(signal_model(TINY))


@pytest.fixture(scope="module")
def images():
    return photographs(150, TINY.image_size)


@pytest.fixture(scope="module")
def answers(folded, images):
    with torch.inference_mode():
        return [part.numpy() for part in folded(torch.tensor(images))]


@pytest.fixture(autouse=True)
def graphs(monkeypatch):
    """The graphs that were captured."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = {name: getattr(products, name) for name in FLAGS}, convolutions.allow_tf32
    for name in FLAGS:
        setattr(products, name, True)
    convolutions.allow_tf32 = True
    yield stand_in(monkeypatch.setattr).made
    for name, value in before[0].items():
        setattr(products, name, value)
    convolutions.allow_tf32 = before[1]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_any_number_of_images_through_two_graphs_in_any_thread(dtype, folded, images, answers, graphs):
    model = load(None, folded, dataclasses.replace(FLOAT32, dtype=dtype))
    close = 1e-4 if dtype == "float32" else 0.1
    with ThreadPoolExecutor(1) as other:
        for count in (150, 1, 64, 16, 17, 128, 140):  # whole batches and tails, over what more images left behind
            for run in (model, lambda pixels: other.submit(model, pixels).result(60)):
                embedding, logits = run(images[-count:])
                assert embedding.dtype == logits.dtype == np.float32 and len(embedding) == len(logits) == count
                for got, expected in zip((embedding, logits), answers, strict=True):
                    assert np.abs(got - expected[-count:]).max() < close
    assert [len(graph.calls[0][1][0]) for graph in graphs] == [64, 16]


def test_answers_outlive_the_next_replay(folded, images, answers):
    model = load(None, folded, FLOAT32)
    first = model(images[:64])
    model(images[64:128])
    assert np.allclose(first[0], answers[0][:64], atol=1e-4) and np.allclose(first[1], answers[1][:64], atol=1e-4)


def test_a_replay_runs_no_python(folded, images):
    model = load(None, folded, FLOAT32)
    model.model = None
    assert np.isfinite(model(images)[1]).all()


def test_float32_means_float32(folded):
    DeviceModel(folded, FLOAT32)
    assert not any(getattr(torch.backends.cuda.matmul, name) for name in FLAGS) and not torch.backends.cudnn.allow_tf32


class Small(torch.nn.Module):
    """A model on a device that holds `room` images; what it took for those that did not fit."""

    def __init__(self, room, error=torch.OutOfMemoryError("CUDA out of memory")):
        super().__init__()
        self.room, self.error, self.seen, self.taken = room, error, [], []

    def forward(self, pixels):
        self.seen.append(len(pixels))
        values = pixels.float()
        if len(pixels) > self.room:
            self.taken.append(weakref.ref(values))
            raise type(self.error)(str(self.error))
        return values.mean((1, 2)), values.sum((1, 2))


def test_a_batch_that_does_not_fit_is_halved_with_its_memory_free(monkeypatch):
    model, held = DeviceModel(Small(2), dataclasses.replace(FLOAT32, batch=8)), []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: held.append([taken() for taken in model.model.taken]))
    pixels = photographs(11, 8)
    gc.disable()  # what is free is free without it
    try:
        embedding, logits = model(pixels)
    finally:
        gc.enable()
    assert np.allclose(logits, pixels.astype(np.float32).sum((1, 2))) and embedding.shape == (11, 3)
    assert model.batch == 2 and held == [[None], [None, None]]
    model.model.seen.clear()
    model(pixels)
    assert model.model.seen == []  # both graphs are there, and it stays so


def test_a_capture_that_runs_out_of_memory_is_halved_too(monkeypatch):
    """torch then reports that the capture was broken off."""
    capture, failed = torch.cuda.graph, []

    def broken_off(graph, **options):
        if failed:
            return capture(graph, **options)
        failed.append(1)
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise torch.AcceleratorError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "graph", broken_off)
    model, pixels = DeviceModel(Small(64), FLOAT32), photographs(75, 8)
    assert np.allclose(model(pixels)[1], pixels.astype(np.float32).sum((1, 2))) and model.batch == 32


def test_one_image_that_does_not_fit_is_an_error():
    for error in (torch.OutOfMemoryError("none"), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`")):
        with pytest.raises(JobError, match="no memory for one image"):
            DeviceModel(Small(0, error), FLOAT32)(photographs(1, 8))


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        torch.AcceleratorError("HIP error: unspecified launch failure"),
    ],
    ids=str,
)
def test_a_broken_context_is_told_from_a_bug(error):
    with pytest.raises(DeviceLostError, match="the GPU failed: (CUDA|cuDNN|HIP) error"):
        DeviceModel(Small(0, error), FLOAT32)(photographs(1, 8))
    with pytest.raises(RuntimeError, match="a bug"):
        DeviceModel(Small(0, RuntimeError("a bug")), FLOAT32)(photographs(1, 8))


def test_a_gpu_that_does_not_work_is_one_line(folded, monkeypatch):
    monkeypatch.undo()  # torch without a GPU
    runnable = make_runnable(folded, ModelConfig(checkpoint="unused"), FLOAT32)
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ConfigError, match="^compute.gpus_per_replica: the model does not run: .*; mend that, or set") as raised:
        runnable.load()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("wrong", [64, 16])
def test_the_check_asks_both_graphs(wrong, folded, images, monkeypatch):
    checked, replay = make_runnable(folded, ModelConfig(checkpoint="unused"), FLOAT32).load(), torch_backend.Graph.__call__

    def swapped(graph, pixels):
        embedding, logits = replay(graph, pixels)
        return embedding, logits.roll(1, 1) if len(graph.pixels) == wrong else logits

    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="does not give torch's float32 results"):
        patch.setattr(torch_backend.Graph, "__call__", swapped)
        checked(images[:1])
    checked(images)


def test_a_shape_is_compiled_once(folded, images, monkeypatch):
    """Whichever thread asks, also after the batch was halved. Nothing is recorded here: torch compiles nothing meanwhile."""
    shapes, compiler = [], torch.compile

    def counting(graph, inputs):
        shapes.append(next(tuple(given.shape) for given in inputs if given.dtype == torch.uint8))
        return graph.forward

    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **options: contextlib.nullcontext())
    monkeypatch.setattr(torch, "compile", lambda model, **options: compiler(model, backend=counting, **options))
    torch._dynamo.reset()
    model = load(None, folded, dataclasses.replace(FLOAT32, compile=True))
    with ThreadPoolExecutor(1) as other:
        for count in (150, 1, 64, 5):
            model(images[:count])
            other.submit(model, images[:count]).result(60)
        assert [shape[0] for shape in shapes] == [64, 16]
        model._smaller("no room")
        other.submit(model, images).result(60)
        model.graphs.clear()
        model(images)
    assert [shape[0] for shape in shapes] == [64, 16, 32] and {shape[1:] for shape in shapes} == {(64, 64, 3)}
