"""Every backend against torch in float32, on a LeViT that tells photographs apart."""

import copy
import dataclasses
import gc
import importlib.util
import os
import pickle
import shutil
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from levit_batch.errors import ConfigError, UserError
from levit_batch.inference import cache
from levit_batch.inference.backends.choose import Runtime, backend_module, choose, make_runtime
from levit_batch.inference.check import CheckedBackend, check
from levit_batch.inference.fold import fold
from levit_batch.inference.runnable import make_runnable
from levit_batch.job.config import ModelConfig
from tests.support.models import TINY, photographs, signal_model

BACKENDS = ("torch", "openvino", "onnxruntime")
CPU = Runtime(gpu=False, dtype="float32", batch=4, compile=False)


def model(**values):
    return ModelConfig(checkpoint="unused", **values)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As a replica has: on a busy machine threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folded():
    return fold(signal_model(TINY))


@pytest.fixture(scope="module")
def images():
    return photographs(19, TINY.image_size)


@pytest.fixture(scope="module")
def answers(folded, images):
    with torch.inference_mode():
        return [part.numpy() for part in folded(torch.tensor(images))]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cache of this module's own, so that each graph is exported once here."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.mark.parametrize("name", BACKENDS)
def test_equals_torch(name, folded, images, answers, home):
    run = make_runnable(folded, model(backend=name), CPU).load()
    for count in (1, 4, 19):  # less than a batch, one, several and a rest
        embedding, logits = run(images[:count])
        assert embedding.dtype == logits.dtype == np.float32 and embedding.shape == (count, TINY.hidden_sizes[-1])
        assert np.allclose(embedding, answers[0][:count], atol=1e-4) and np.allclose(
            logits, answers[1][:count], atol=1e-4
        )


@pytest.mark.parametrize("name", BACKENDS)
def test_an_image_does_not_notice_its_neighbours(name, folded, images, home):
    run = make_runnable(folded, model(backend=name), CPU).load()
    _, together = run(images)
    _, alone = run(images[6:7])
    _, shifted = run(images[5:])
    assert np.allclose(alone[0], together[6], atol=1e-5) and np.allclose(shifted, together[5:], atol=1e-5)


def test_results_outlive_the_next_batch(folded, images, answers, home):
    for name in BACKENDS:
        run = make_runnable(folded, model(backend=name), CPU).load()
        first = run(images[:4])
        run(images[4:8])
        assert np.allclose(first[1], answers[1][:4], atol=1e-4), name


@pytest.mark.parametrize("name", BACKENDS)
def test_weights_travel_as_buffers_that_processes_can_share(name, folded, images, answers, home):
    buffers = []
    small = pickle.dumps(make_runnable(folded, model(backend=name), CPU), 5, buffer_callback=buffers.append)
    weights = sum(tensor.nbytes for tensor in folded.state_dict().values())
    assert len(small) < weights / 10 < weights <= sum(buffer.raw().nbytes for buffer in buffers)
    shared = [bytes(buffer) for buffer in buffers]  # read-only, as Ray's are
    arrived = pickle.loads(small, buffers=shared)
    for key, tensor in folded.state_dict().items():
        got = arrived.folded.state_dict()[key]
        assert torch.equal(got, tensor) and got.stride() == tensor.stride()
        at = got.untyped_storage().data_ptr()
        assert any(0 <= at - np.frombuffer(held, np.uint8).ctypes.data < len(held) for held in shared)
    untouched, run = [bytearray(held) for held in shared], arrived.load()
    looked_at = weakref.ref(arrived.exported["model.bin"]) if name == "openvino" else lambda: True
    del arrived
    gc.collect()
    assert looked_at() is not None, "Ray may give the memory to something else"
    assert np.allclose(run(images)[1], answers[1], atol=1e-4)
    assert shared == untouched  # nobody wrote there


@pytest.mark.parametrize("name", ("torch", "openvino"))
def test_bfloat16_is_close_and_checked(name, folded, images, answers, home):
    runtime = Runtime(gpu=False, dtype="bfloat16", batch=4, compile=False)
    if name == "openvino" and backend_module(name).refuses(runtime):
        with pytest.raises(ConfigError, match="bfloat16 in this processor"):
            make_runnable(folded, model(backend=name), runtime)
        return
    run = make_runnable(folded, model(backend=name), runtime).load()
    error = run(images)[1] - answers[1]
    assert isinstance(run, CheckedBackend) and 1e-4 < np.sqrt((error**2).mean()) / answers[1].std() < 0.2


def checked(run, folded, dtype: str) -> CheckedBackend:
    """`run` (pixels to embedding and logits, a module or a function) as a backend under the check."""

    @torch.inference_mode()
    def backend(pixels):
        return tuple(part.float().numpy() for part in run(torch.tensor(pixels)))

    backend.batch = 8
    return CheckedBackend(backend, folded, "torch", dtype)


def broken() -> dict[str, nn.Module]:
    """The folded tiny model, wrong in a different way each."""
    whole = signal_model(TINY)
    models = {
        "another head": fold(whole, "distill"),
        "normalisation forgotten": fold(whole, processor={"do_normalize": False}),
        "other normalisation": fold(whole, processor={"image_mean": [0.5] * 3, "image_std": [0.5] * 3}),
        "another model": fold(signal_model(TINY, seed=1)),
    }
    for i, layer in enumerate(fold(whole).layers):
        if hasattr(layer, "queries"):
            continue  # without it the shapes do not fit
        models[f"layer {i} left out"] = fold(whole)
        models[f"layer {i} left out"].layers[i] = nn.Identity()
    for i in (0, 5, 11):
        models[f"layer {i} of other weights"] = fold(whole)
        models[f"layer {i} of other weights"].layers[i] = fold(signal_model(TINY, seed=1)).layers[i]
    swapped = models["two classes swapped"] = fold(whole)
    swapped.head.weight.data, swapped.head.bias.data = (
        part.roll(1, 0) for part in (swapped.head.weight.data, swapped.head.bias.data)
    )
    return models


@pytest.mark.parametrize("dtype", ("float32", "float16", "bfloat16"))
def test_wrong_graphs_are_found_whatever_the_first_images(folded, images, dtype):
    grey = np.repeat(images.mean(3, keepdims=True).astype(np.uint8), 3, 3)
    wrong = {name: model.to(getattr(torch, dtype)) for name, model in broken().items()}
    wrong["channels swapped"] = lambda pixels: folded(pixels.flip(3))
    for first in (images[:1], grey[:8]):
        for name, run in wrong.items():
            with pytest.raises(UserError, match=f"torch in {dtype} .* logit error .* clear labels changed"):
                checked(run, folded, dtype)(first)
                pytest.fail(f"{name} was not found")


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
@pytest.mark.parametrize("classes", (2, 7, 1000))
def test_first_images_between_two_classes_do_not_stop_a_job(images, dtype, classes):
    """Each alone, as the first and only image of a chunk, with a head that puts it right between its best two classes."""
    exact = fold(signal_model(dataclasses.replace(TINY, id2label=None, label2id=None, num_labels=classes)))
    changed = 0
    for i in range(0, len(images), 3):
        model, first = copy.deepcopy(exact), images[i : i + 1]
        with torch.inference_mode():
            best, second = model(torch.tensor(first))[1].topk(2)[1][0]
            lead = model(torch.tensor(first))[1][0, best] - model(torch.tensor(first))[1][0, second]
            model.head.bias[second] += lead - 1e-4
        rounded = checked(copy.deepcopy(model).to(getattr(torch, dtype)), model, dtype)
        changed += int(rounded(first)[1].argmax() != best)
    assert changed or dtype == "float16"  # bfloat16 does change labels that close


@pytest.mark.parametrize("dtype", ("float16", "bfloat16"))
def test_a_model_that_says_the_same_of_everything_passes(folded, images, dtype):
    flat = copy.deepcopy(folded)
    flat.head.weight.data.zero_()
    for only in (flat, fold(signal_model(dataclasses.replace(TINY, id2label=None, label2id=None, num_labels=1)))):
        checked(copy.deepcopy(only).to(getattr(torch, dtype)), only, dtype)(images[:1])


def test_what_the_check_says(folded, images, answers):
    logits = answers[1]
    with pytest.raises(UserError, match="0.001 allowed"):
        check(logits * 1.01, logits, "onnxruntime", "float32")
    with pytest.raises(UserError, match="logit error nan"):
        check(np.full_like(logits, np.nan), logits, "torch", "float16")
    right = checked(folded, folded, "float32")
    assert np.allclose(right(images)[1], logits, atol=1e-5) and right.folded is None


def test_the_fastest_that_keeps_the_dtype(monkeypatch):
    assert choose(model(), CPU) == "openvino"
    assert choose(model(), make_runtime(model(compile=True), False, "float32", "auto")) == "torch"
    assert choose(model(), make_runtime(model(), True, "float16", "auto")) == "torch"
    assert choose(model(), make_runtime(model(), False, "float16", "auto")) == "torch"
    monkeypatch.setattr(backend_module("openvino"), "PACKAGES", ("not_there",))
    assert choose(model(), CPU) == "onnxruntime"
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "onnxscript" else find(name, *more))
    assert choose(model(), CPU) == "torch"  # what runs a graph is no use without what makes it


def test_what_is_asked_for_and_cannot_be(monkeypatch):
    for name in ("openvino", "onnxruntime"):
        for runtime, reason in (
            (make_runtime(model(), True, "float32", "auto"), "gpus_per_replica=0"),
            (make_runtime(model(compile=True), False, "float32", "auto"), "model.compile"),
            (make_runtime(model(), False, "float16", "auto"), "float16"),
        ):
            with pytest.raises(ConfigError, match=f"model.backend: {name} .*{reason}"):
                choose(model(backend=name), runtime)
    monkeypatch.setattr(backend_module("onnxruntime"), "PACKAGES", ("onnxruntime", "not_there"))
    with pytest.raises(ConfigError, match=r"lacks not_there: pip install 'levit-batch\[onnx\]'"):
        choose(model(backend="onnxruntime"), CPU)


def test_targets_for_a_device():
    assert make_runtime(model(), False, "float32", "auto") == Runtime(False, "float32", 8, False)
    assert make_runtime(model(), True, "float16", "auto") == Runtime(True, "float16", 256, False)
    assert make_runtime(model(compile=True), True, "float16", 32) == Runtime(True, "float16", 32, True)


def test_a_graph_is_exported_once(folded, images, answers, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module, made = backend_module("openvino"), []
    export = module.export
    monkeypatch.setattr(module, "export", lambda *given: made.append(1) or export(*given))
    for _ in range(2):
        run = make_runnable(folded, model(backend="openvino"), CPU).load()
        assert np.allclose(run(images)[1], answers[1], atol=1e-4)
    assert len(made) == 1
    (kept,) = (tmp_path / "levit-batch").iterdir()
    (kept / "model.bin").write_bytes(b"damaged")
    assert np.allclose(make_runnable(folded, model(backend="openvino"), CPU).load()(images)[1], answers[1], atol=1e-4)
    assert len(made) == 2 and len(list((tmp_path / "levit-batch").iterdir())) == 1
    for changed in (fold(signal_model(TINY), "class"), fold(signal_model(TINY), processor={"rescale_factor": 1 / 127})):
        assert cache._key("openvino", changed, CPU) != cache._key("openvino", folded, CPU)


def test_graphs_that_were_not_used_for_long_go_when_a_new_one_comes(folded, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "levit-batch"
    make_runnable(folded, model(backend="openvino"), CPU)
    (mine,) = folder.iterdir()
    for i in range(cache.KEPT + 3):
        shutil.copytree(mine, folder / f"openvino-{i:02d}")
    for i, name in enumerate((mine.name, ".new-killed", *(f"openvino-{i:02d}" for i in range(cache.KEPT + 3)))):
        (folder / name).mkdir(exist_ok=True)
        os.utime(folder / name, (1e9 + i, 1e9 + i))
    (folder / ".new-now").mkdir()
    make_runnable(folded, model(backend="openvino"), CPU)  # used again: the oldest is now the newest
    make_runnable(fold(signal_model(TINY), "class"), model(backend="openvino"), CPU)
    left = {path.name for path in folder.iterdir()}
    assert mine.name in left and ".new-now" in left and ".new-killed" not in left
    assert len(left) == cache.KEPT + 1 and {f"openvino-{i + 5:02d}" for i in range(8)} < left


def test_a_cache_that_cannot_be_written_does_not_matter(folded, images, answers, tmp_path, monkeypatch):
    (tmp_path / "levit-batch").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert np.allclose(make_runnable(folded, model(), CPU).load()(images)[1], answers[1], atol=1e-4)
