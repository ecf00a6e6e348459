import json
import os
import pickle

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from levit_batch.errors import CheckpointError
from levit_batch.levit.checkpoint import check_labels_photographs, load_checkpoint
from levit_batch.levit.model import LevitForImageClassification, LevitForImageClassificationWithTeacher, LevitModel
from levit_batch.levit.weights import imagenet_names
from levit_batch.pixels.preprocessing import Preprocessing
from pipelines.cli import main
from tests.support import GOLDEN, ROOT
from tests.support.models import TINY, normalised, photographs, shared_model, signal_model

HEAD = "classifier_distill.linear.bias"
STEM = "levit.patch_embeddings.embedding_layer_1.batch_norm.bias"


@pytest.fixture
def folder(tmp_path):
    """A checkpoint folder in Hugging Face's form, to be damaged."""
    shared_model().save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def describe(folder, name="config.json", **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("name", "answers", "form", "edge"),
    [
        ("levit_authors.pth", "authors", "authors", 80),
        ("levit_timm", "levit", "timm", 77),  # int(256/224 * 77) = 88 = floor(80 / 0.9): timm crops 0.9
        ("levit_conv_timm", "levit_conv", "timm", 77),
    ],
)
@torch.no_grad()
def test_golden_forms(name, answers, form, edge):
    golden = np.load(GOLDEN / "levit_answers.npz")
    checkpoint = load_checkpoint(str(GOLDEN / name))
    got = checkpoint.model(normalised(golden["pixels"]))
    np.testing.assert_allclose(got.logits, golden[f"{answers}_logits"], atol=1e-4)
    np.testing.assert_allclose(got.pooler_output, golden[f"{answers}_pooled"], atol=1e-4)
    assert isinstance(checkpoint.model, LevitForImageClassificationWithTeacher)
    assert checkpoint.form == form and checkpoint.processor["size"] == {"shortest_edge": edge}
    assert checkpoint.config.image_size == 80 and checkpoint.class_names == [f"LABEL_{i}" for i in range(5)]


def test_one_digest_for_the_same_weights_in_every_form(tmp_path):
    names = ["levit_authors.pth", "levit_timm", "levit_conv_timm", "levit_timm/model.safetensors"]
    forms = [load_checkpoint(str(GOLDEN / name)) for name in names]
    digests, backbones = {form.digest for form in forms}, {form.backbone for form in forms}
    LevitForImageClassificationWithTeacher.from_pretrained(GOLDEN / "levit_timm").save_pretrained(tmp_path)
    again = load_checkpoint(str(tmp_path))
    assert digests == {again.digest} and len(again.digest) == 64 and again.form == "huggingface"
    assert again.processor["size"] == {"shortest_edge": 77}  # recorded with the weights
    rewrite(tmp_path, lambda weights: weights[HEAD].add_(1e-6))
    other_head = load_checkpoint(str(tmp_path))
    assert other_head.digest != again.digest and backbones == {other_head.backbone}, "embeddings are the same"
    rewrite(tmp_path, lambda weights: weights[STEM].add_(1e-6))
    assert load_checkpoint(str(tmp_path)).backbone not in backbones


@torch.no_grad()
def test_pickle_bare_or_under_model_and_without_step_counts(folder, tmp_path):
    weights = {n: t for n, t in load_file(folder / "model.safetensors").items() if "num_batches" not in n}
    digest = load_checkpoint(str(folder)).digest
    for content in (weights, {"model": weights, "epoch": 3}):
        torch.save(content, tmp_path / "alone.pth")
        assert load_checkpoint(str(tmp_path / "alone.pth")).digest == digest
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    assert load_checkpoint(str(folder)).digest == digest


def test_a_half_precision_file_becomes_float32(folder):
    rewrite(folder, lambda ws: ws.update({n: t.half() for n, t in ws.items() if t.is_floating_point()}))
    assert {p.dtype for p in load_checkpoint(str(folder)).model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ws: ws.pop(HEAD), f"missing: {HEAD}"),
        (lambda ws: ws.update(extra=torch.ones(1)), "unknown: extra"),
        (lambda ws: ws.update({HEAD: torch.ones(9)}), r"misshapen: .*bias \(9,\) instead of \(7,\)"),
        (lambda ws: ws[HEAD].fill_(float("nan")), f"not finite numbers: {HEAD}"),
        (lambda ws: [ws.pop(n) for n in list(ws) if "stages.1" in n], r"missing: .*stages\.1.* and \d+ more"),
        (lambda ws: [ws.pop(n) for n in list(ws) if "distill" in n], r"missing: classifier_distill\.batch_norm"),
    ],
)
def test_strict(folder, change, message):
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(folder))


def test_strict_in_timms_names_too(tmp_path):
    weights = load_file(GOLDEN / "levit_timm/model.safetensors")
    weights["stages.0.blocks.0.attn.qkv.extra"] = weights.pop("stages.0.blocks.0.attn.qkv.bn.bias")
    save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"missing: .*queries_keys_values.batch_norm.bias; unknown: .*extra"):
        load_checkpoint(str(tmp_path / "a.safetensors"))


def test_the_weights_say_which_class_it_is(folder, tmp_path):
    describe(folder, architectures=["LevitForImageClassification"])  # wrong: the file has two heads
    assert type(load_checkpoint(str(folder)).model) is LevitForImageClassificationWithTeacher
    rewrite(folder, lambda ws: [ws.pop(n) for n in list(ws) if "distill" in n])
    describe(folder, architectures=None)
    assert type(load_checkpoint(str(folder)).model) is LevitForImageClassification
    rewrite(folder, lambda ws: [ws.pop(n) for n in list(ws) if "classifier" in n])
    with pytest.raises(CheckpointError, match="has no head"):
        load_checkpoint(str(folder))
    assert LevitModel.from_pretrained(folder).config.embedding_size == 64


def test_the_offset_table_that_old_files_repeat_is_checked(folder):
    name = "levit.encoder.stages.0.layers.0.module.attention_bias_idxs"
    rewrite(folder, lambda ws: ws.update({name: shared_model().get_buffer(name)}))
    load_checkpoint(str(folder))
    rewrite(folder, lambda ws: ws.update({name: ws[name].flip(0).contiguous()}))
    with pytest.raises(CheckpointError, match="attention_bias_idxs"):
        load_checkpoint(str(folder))


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_that_wants_to_run_code_is_refused(tmp_path):
    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"model": Bomb(str(tmp_path / "ran"))}))
    torch.save({"model": Bomb(str(tmp_path / "ran"))}, tmp_path / "bad2.pth")
    for name in ("bad.pth", "bad2.pth"):
        with pytest.raises(CheckpointError, match="refused"):
            load_checkpoint(str(tmp_path / name))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "a.pth"])
@pytest.mark.parametrize("data", [b"", b"not weights", bytes(100)])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CheckpointError, match=name):
        load_checkpoint(str(tmp_path))


def test_other_content_is_named(tmp_path):
    torch.save({"layer.weight": torch.ones(1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="not a LeViT's.*layer.weight"):
        load_checkpoint(str(tmp_path))
    torch.save({"model": "none"}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="named tensors"):
        load_checkpoint(str(tmp_path))
    torch.save({}, tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="found: a.pth, b.pth"):
        load_checkpoint(str(tmp_path))
    with pytest.raises(CheckpointError, match="no such file"):
        load_checkpoint(str(tmp_path / "none.pth"))


def test_class_names(folder):
    assert load_checkpoint(str(folder)).class_names[0] == "LABEL_0"
    describe(folder, id2label={str(i): n for i, n in enumerate("abcdeab")}, label2id=None)
    assert load_checkpoint(str(folder)).class_names == ["a", "b", "c", "d", "e", "a (5)", "b (6)"]
    thousand = signal_model(type(TINY)(**{**vars(TINY), "id2label": None, "label2id": None, "num_labels": 1000}))
    thousand.save_pretrained(folder)
    names = load_checkpoint(str(folder)).class_names
    assert names[0] == "tench, Tinca tinca" and names[281] == "tabby, tabby cat" and len(set(names)) == 1000
    assert names[134] == "crane" and names[517] == "crane (517)" and len(imagenet_names()) == 1000


def test_timms_own_class_names(tmp_path):
    config = json.loads((GOLDEN / "levit_timm/config.json").read_text())
    config["pretrained_cfg"] |= {"label_names": list("abcde"), "label_descriptions": {"a": "ape"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((GOLDEN / "levit_timm/model.safetensors").read_bytes())
    assert load_checkpoint(str(tmp_path)).class_names == ["ape", "b", "c", "d", "e"]
    describe(tmp_path, pretrained_cfg=config["pretrained_cfg"] | {"label_names": ["a"]})
    with pytest.raises(CheckpointError, match="names 1 classes, the head has 5"):
        load_checkpoint(str(tmp_path))
    describe(tmp_path, pretrained_cfg={"crop_mode": "squash"})
    with pytest.raises(CheckpointError, match="squash"):
        load_checkpoint(str(tmp_path))
    describe(tmp_path, architecture="levit_256d")
    with pytest.raises(CheckpointError, match="levit_256d"):
        load_checkpoint(str(tmp_path))


def test_preprocessing_values(folder):
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({"size": 70, "crop_size": 64, "image_mean": [0.5, 0.5, 0.5], "unknown": 1}))
    got = load_checkpoint(str(folder)).processor
    own = {"size": {"shortest_edge": 70}, "crop_size": {"height": 64, "width": 64}, "image_mean": [0.5] * 3}
    assert got == Preprocessing.read(side=TINY.image_size).to_dict() | own
    path.unlink()
    assert load_checkpoint(str(folder)).processor == Preprocessing.read(side=TINY.image_size).to_dict()
    for values, message in [
        ({"crop_size": 80}, "64 x 64"),
        ({"size": {"longest_edge": 3}}, "shortest_edge"),
        ({"image_std": [1, 1]}, "3 values"),
        ({"resample": 9}, "resample is 9"),
        ([1], "JSON object"),
    ]:
        path.write_text(json.dumps(values))
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(str(folder))


@torch.no_grad()
def test_any_image_size_that_is_a_multiple_of_the_patch_size(tmp_path):
    model = signal_model(type(TINY)(**vars(TINY) | {"image_size": 112}), heads=1)
    model.save_pretrained(tmp_path)
    for place in (tmp_path, tmp_path / "model.safetensors"):
        loaded = load_checkpoint(str(place))
        pixels = normalised(photographs(2, 112))
        assert loaded.config.image_size == 112 and loaded.model(pixels).logits.equal(model(pixels).logits)


@pytest.fixture
def hub(hub):
    shared_model().save_pretrained(hub.folder / "models/org/tiny")
    return hub


def test_from_the_hub_and_from_its_cache(hub, folder, monkeypatch):
    loaded = load_checkpoint("org/tiny")
    assert loaded.digest == load_checkpoint(str(folder)).digest and loaded.name == "org/tiny"
    assert len(loaded.revision) == 40 and load_checkpoint("org/tiny", loaded.revision).revision == loaded.revision
    asked = len(hub.requests)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert load_checkpoint("org/tiny").revision == loaded.revision and len(hub.requests) == asked
    with pytest.raises(CheckpointError, match=r"HF_HUB_OFFLINE is set.*models --fetch org/other"):
        load_checkpoint("org/other")
    monkeypatch.chdir(folder.parent)
    with pytest.raises(CheckpointError, match=f"mistyped: there is no such file or folder in {folder.parent}; as a hub"):
        load_checkpoint("mistyped")


def test_hub_errors_say_what_to_do(hub):
    with pytest.raises(CheckpointError, match="org/none: there is no such"):
        load_checkpoint("org/none")
    with pytest.raises(CheckpointError, match="no such revision"):
        load_checkpoint("org/tiny", "v9")
    hub.gate("org/tiny")
    with pytest.raises(
        CheckpointError, match=rf"accept the conditions at {hub.url}/org/tiny, then log in with `hf auth"
    ):
        load_checkpoint("org/tiny")


def test_a_token_opens_a_gated_repository(hub, monkeypatch):
    hub.gate("org/tiny")
    hub.tokens.add("hf_good")
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert load_checkpoint("org/tiny").form == "huggingface"


def test_safetensors_are_preferred_and_a_pickle_is_taken_when_alone(hub):
    repo = hub.folder / "models/org/tiny"
    torch.save(load_file(repo / "model.safetensors"), repo / "pytorch_model.bin")
    digest = load_checkpoint("org/tiny").digest
    assert not any("pytorch_model.bin" in request.path for request in hub.requests)
    (repo / "model.safetensors").unlink()
    assert load_checkpoint("org/tiny").digest == digest
    assert any("pytorch_model.bin" in request.path for request in hub.requests)


def test_a_hub_that_fails_now_and_then(hub, folder):
    digest = load_checkpoint(str(folder)).digest
    hub.fail_every(2)
    assert load_checkpoint("org/tiny").digest == digest
    assert [request.status for request in hub.requests].count(503) > 2
    hub.fail_every(1)  # and then for good: what is in the cache will do
    assert load_checkpoint("org/tiny").digest == digest


def test_a_hub_that_does_not_answer(hub):
    hub.fail_every(1, status=500)
    with pytest.raises(CheckpointError, match="org/tiny"):
        load_checkpoint("org/tiny")


@torch.no_grad()
def test_push_to_hub(hub, monkeypatch):
    hub.tokens.add("hf_good")
    model = shared_model(heads=1)
    model.push_to_hub("tester/pushed", token="hf_good")
    loaded = load_checkpoint("tester/pushed").model
    pixels = normalised(photographs(2, 64))
    assert type(loaded) is LevitForImageClassification and loaded(pixels).logits.equal(model(pixels).logits)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "problem_type multi_label_classification, num_labels 10"),
        ({"problem_type": "regression"}, "problem_type regression"),
        ({"num_labels": 1}, "problem_type None, num_labels 1"),
        ({"num_channels": 1}, "takes images of 1 channels"),
        ({"num_channels": 4}, "takes images of 4 channels"),
    ],
)
def test_a_job_refuses_in_one_line_what_chooses_no_class_of_photographs(fields, message, tmp_path, capsys):
    model = LevitForImageClassification(TINY.with_labels([f"LABEL_{i}" for i in range(10)]).changed(**fields))
    model.save_pretrained(tmp_path / "model")
    config = ["--set", f"model.checkpoint={tmp_path / 'model'}", "--set", f"output.path={tmp_path / 'out'}"]
    assert main(["plan", str(ROOT / "configs/demo.yaml"), *config]) == 2
    said = capsys.readouterr().err.strip()
    assert message in said and "\n" not in said
    with pytest.raises(CheckpointError, match=message):
        check_labels_photographs(load_checkpoint(str(tmp_path / "model")))
