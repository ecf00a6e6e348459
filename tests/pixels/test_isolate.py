"""An image that harms its decoder costs one row; with healthy images isolation changes nothing."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from levit_batch.errors import JobError
from levit_batch.pixels.isolate import IsolatedPreprocessor
from levit_batch.pixels.preprocess import Preprocessor
from tests.support import SUPPORT
from tests.support.deadly_image import deadly
from tests.support.images import CHINA, FLOWER, encode

LEVIT = {"do_resize": True, "size": 32, "resample": 3, "do_center_crop": True, "crop_size": 32}
LIMITS = {"max_pixels": 1_000_000, "timeout": 1.5}


def python(code: str) -> subprocess.CompletedProcess:
    """Run code in a process of its own that can decode deadly images."""
    path = os.pathsep.join([str(SUPPORT), *filter(None, sys.path)])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)


@pytest.fixture
def isolated(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    return IsolatedPreprocessor(LEVIT, **LIMITS)


def test_fast_mode_too():
    images = [encode(CHINA), encode(FLOWER.resize((300, 200)))]
    isolated = IsolatedPreprocessor(LEVIT, mode="fast", **LIMITS)
    assert np.array_equal(isolated(images)[0], Preprocessor(LEVIT, mode="fast", **LIMITS)(images)[0])
    assert not np.array_equal(isolated(images)[0], Preprocessor(LEVIT, **LIMITS)(images)[0])


def test_results_are_those_of_decoding_in_place(isolated):
    huge = encode(Image.new("L", (1001, 1000)), "PNG")
    images = [encode(CHINA), None, b"", encode(FLOWER)[:5000], b"?", huge, memoryview(encode(FLOWER, "PNG"))]
    pixels, errors = isolated(images)
    expected_pixels, expected_errors = Preprocessor(LEVIT, **LIMITS)(images)
    assert errors == expected_errors and [error is None for error in errors] == [True, *[False] * 5, True]
    assert np.array_equal(pixels, expected_pixels)


def test_each_deadly_image_costs_its_own_row(isolated):
    good = encode(CHINA)
    deeds = ["segfault", "hang", "exit", "memory"]
    pixels, errors = isolated([good, *[image for deed in deeds for image in (deadly(deed), good)]])
    assert errors[0::2] == [None] * 5
    assert "SIGSEGV" in errors[1] and "exit status 3" in errors[5] and "memory" in errors[7]
    assert [error.split(":")[0] for error in errors[1::2]] == ["crashed", "timeout", "crashed", "crashed"]
    assert all(np.array_equal(pixels[0], row) for row in pixels[2::2]) and pixels[0].any()
    assert not pixels[1::2].any()


def test_one_child_serves_all_images_and_ends_with_the_preprocessor():
    isolated = IsolatedPreprocessor(LEVIT, **LIMITS)
    isolated([encode(CHINA)])
    child = isolated._child.process
    isolated([encode(FLOWER)] * 3)
    assert isolated._child.process is child and child.poll() is None
    del isolated
    assert child.poll() is not None


def test_a_child_that_died_between_images_is_replaced(isolated):
    isolated([encode(CHINA)])
    isolated._child.process.kill()
    isolated._child.process.wait()
    assert isolated([encode(CHINA)])[1] == [None]


def test_a_child_that_cannot_start_fails_the_job_not_the_row(monkeypatch, tmp_path):
    (tmp_path / "simplejpeg.py").write_text("raise ImportError('broken installation')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(JobError, match="did not start"):
        IsolatedPreprocessor(LEVIT, **LIMITS)([encode(CHINA)])


def test_the_child_needs_no_torch():
    assert python("import sys, levit_batch.pixels.decode_child; sys.exit('torch' in sys.modules)").returncode == 0


@pytest.mark.parametrize("deed, status", [("hang", 1), ("segfault", -11)])
def test_in_place_a_deadly_image_ends_the_process(deed, status):
    """The caller's retry then isolates; without the watchdog the hang would last for years."""
    code = (
        "from levit_batch.pixels.preprocess import Preprocessor; from deadly_image import deadly; "
        f"Preprocessor({LEVIT!r}, timeout=0.5)([deadly({deed!r})])"
    )
    run = python(code)
    assert run.returncode == status
    assert deed == "segfault" or "Timeout" in run.stderr


def test_slow_images_that_each_keep_the_time_do_not_end_the_process():
    code = (
        "import time; from levit_batch.pixels.watchdog import Watchdog\n"
        "with Watchdog(0.5) as watchdog:\n"
        "    for _ in range(6):\n"
        "        watchdog.pat(); time.sleep(0.3)\n"
        "time.sleep(1)"
    )
    assert python(code).returncode == 0
