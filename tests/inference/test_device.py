"""The device path as a CPU runs it: padding, precision, compilation. tests/inference/test_gpu.py has the rest."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from levit_batch.inference.backends import torch_backend
from levit_batch.inference.backends.batches import batches
from levit_batch.inference.backends.choose import Runtime
from levit_batch.inference.backends.torch_backend import DeviceModel
from levit_batch.inference.fold import fold
from tests.support import ROOT
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


def test_the_reference_is_left_alone(folded):
    before = {name: tensor.clone() for name, tensor in folded.state_dict().items()}
    runtime = Runtime(gpu=False, dtype="bfloat16", batch=8, compile=False)
    embedding, _ = torch_backend.load(None, folded, runtime)(photographs(2, TINY.image_size))
    assert embedding.dtype == np.float32
    assert all(torch.equal(before[name], tensor) for name, tensor in folded.state_dict().items())


# Loads the tiny model compiled, as a replica does.
COMPILED = """
from levit_batch.inference.backends.choose import Runtime
from levit_batch.inference.fold import fold
from levit_batch.inference.runnable import Runnable
from tests.support.models import TINY, signal_model
Runnable("torch", Runtime(False, "float32", 8, True), None, fold(signal_model(TINY))).load()
"""


def test_a_model_that_cannot_be_compiled_is_one_line(tmp_path):
    env = os.environ | {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", COMPILED], env=env, cwd=ROOT, capture_output=True, text=True)
    said = ended.stderr.splitlines()[-1]
    assert said.startswith("levit_batch.errors.ConfigError: model.compile: the model does not run: ")
    assert said.endswith("; mend that, or set model.compile=false")
