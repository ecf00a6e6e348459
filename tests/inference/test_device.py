"""The device path as a CPU runs it: padding, precision, and a device whose memory is too small."""

import numpy as np
import pytest
import torch

from levit_batch.errors import JobError
from levit_batch.inference.backends import torch_backend
from levit_batch.inference.backends.batches import batches
from levit_batch.inference.backends.choose import Runtime
from levit_batch.inference.backends.torch_backend import BATCHES, DeviceModel, fastest_batch
from levit_batch.inference.fold import fold
from tests.support.models import TINY, photographs, signal_model


@pytest.fixture(scope="module")
def folded():
    return fold(signal_model(TINY))


def device(folded, **values):
    return DeviceModel(folded, Runtime(**{"gpu": False, "dtype": "float32", "batch": 8, "compile": False} | values))


def test_every_batch_has_one_shape():
    pixels = np.arange(10 * 3, dtype=np.uint8).reshape(10, 1, 1, 3)
    shapes = [tuple(part.shape) for part in batches(pixels, 4)]
    assert shapes == [(4, 1, 1, 3)] * 3
    whole = np.concatenate(list(batches(pixels, 4)))
    assert np.array_equal(whole[:10], pixels) and not whole[10:].any()
    assert next(batches(pixels, 4)).ctypes.data == pixels.ctypes.data  # not copied


def test_read_only_pixels_are_taken(folded):
    pixels = photographs(3, TINY.image_size)
    expected = device(folded)(pixels)
    pixels.flags.writeable = False
    assert np.array_equal(device(folded)(pixels)[1], expected[1])


class Small(torch.nn.Module):
    """A model on a device that holds `room` images."""

    def __init__(self, room):
        super().__init__()
        self.room, self.seen = room, []

    def forward(self, pixels):
        self.seen.append(len(pixels))
        if len(pixels) > self.room:
            raise torch.OutOfMemoryError("no room")
        return pixels.float().mean((1, 2)), pixels.float().sum((1, 2))


def test_a_batch_that_does_not_fit_is_halved():
    pixels = photographs(11, 8)
    model = device(Small(2), batch=8)
    embedding, logits = model(pixels)
    assert np.allclose(logits, pixels.astype(np.float32).sum((1, 2))) and embedding.shape == (11, 3)
    assert model.model.seen[:3] == [8, 4, 2] and model.runtime.batch == 2
    model.model.seen.clear()
    model(pixels[:2])
    assert model.model.seen == [2]  # it stays so


@pytest.mark.parametrize(
    ("room", "enough", "best"), [(1 << 20, 256, 256), (1 << 20, 1 << 20, 1024), (200, 1 << 20, 128), (8, 8, 64)]
)
def test_the_batch_grows_while_that_gains_and_fits(room, enough, best, monkeypatch):
    clock, seen = [0.0], []
    monkeypatch.setattr("levit_batch.inference.backends.torch_backend.time.perf_counter", lambda: clock[0])

    def run(pixels, batch):
        seen.append(pixels.shape)
        if batch > room:
            raise torch.OutOfMemoryError("no room")
        clock[0] += 1.0 + max(0, batch / enough - 1)  # a batch costs the same until the device is full

    assert fastest_batch(run, (8, 8, 3)) == best
    assert {shape[1:] for shape in seen} == {(8, 8, 3)} and {shape[0] for shape in seen} <= set(BATCHES)


def test_a_tuned_model_runs_at_the_batch_found(folded, monkeypatch):
    monkeypatch.setattr("levit_batch.inference.backends.torch_backend.BATCHES", (2, 4))
    pixels = photographs(5, TINY.image_size)
    tuned = device(folded, tune=True)
    assert tuned.batch in (2, 4)
    assert np.allclose(tuned(pixels)[1], device(folded)(pixels)[1], atol=1e-5)


def test_one_image_that_does_not_fit_is_an_error():
    with pytest.raises(JobError, match="no memory for one image"):
        device(Small(0))(photographs(1, 8))


def test_the_reference_is_left_alone(folded):
    before = {name: tensor.clone() for name, tensor in folded.state_dict().items()}
    runtime = Runtime(gpu=False, dtype="bfloat16", batch=8, compile=False)
    embedding, _ = torch_backend.load(None, folded, runtime)(photographs(2, TINY.image_size))
    assert embedding.dtype == np.float32
    assert all(torch.equal(before[name], tensor) for name, tensor in folded.state_dict().items())
