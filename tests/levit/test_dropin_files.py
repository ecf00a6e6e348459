"""Configurations and checkpoints, loaded and saved with transformers' options by both libraries."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from levit_batch import (
    LevitConfig,
    LevitForImageClassification,
    LevitForImageClassificationWithTeacher,
    LevitImageProcessor,
    LevitModel,
)
from levit_batch.errors import CheckpointError
from levit_batch.levit.checkpoint import load_checkpoint
from tests.support.models import TINY, photographs, shared_model, signal_model
from tests.support.twins import PIXELS

pytestmark = pytest.mark.usefixtures("one_thread")
COMMON = {  # what transformers' tests give every configuration
    "return_dict": False, "output_hidden_states": True, "output_attentions": True, "dtype": "float16",
    "chunk_size_feed_forward": 5, "is_encoder_decoder": True, "architectures": ["LevitModel"], "problem_type": "regression",
    "id2label": {0: "label"}, "label2id": {"label": 0}, "finetuning_task": "translation", "my_note": {"a": [1]},
}  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    """A one-head checkpoint of seven classes."""
    shared_model(heads=1).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def config_of(folder):
    return json.loads((Path(folder) / "config.json").read_text())


def test_every_common_keyword_is_kept_and_comes_back(tmp_path):
    ours, theirs = LevitConfig(**COMMON), transformers.LevitConfig(**COMMON)
    for name in COMMON.keys() - {"dtype", "architectures"}:
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.dtype == str(theirs.dtype).removeprefix("torch.") and [*ours.architectures] == theirs.architectures
    ours.save_pretrained(tmp_path / "ours"), theirs.save_pretrained(tmp_path / "theirs")
    written, expected = config_of(tmp_path / "ours"), config_of(tmp_path / "theirs")
    assert written == {name: value for name, value in expected.items() if name != "transformers_version"}
    for kind in (LevitConfig, transformers.LevitConfig):
        for name in ("ours", "theirs"):
            read = kind.from_pretrained(tmp_path / name)
            assert read.my_note == {"a": [1]} and read.problem_type == "regression" and read.return_dict is False


def test_a_file_of_transformers_4_is_read(saved):
    """As the published ones are: `torch_dtype`, a version, and the marks that building a model left in `down_ops`."""
    values = config_of(saved)
    values |= {"torch_dtype": values.pop("dtype"), "transformers_version": "4.20.0.dev0", "_name_or_path": "x"}
    values["down_ops"] += [[""], [""]]
    (saved / "config.json").write_text(json.dumps(values))
    for dtype in (None, "auto"):
        model = LevitForImageClassification.from_pretrained(saved, dtype=dtype)
        assert model.dtype == torch.float32 and model.config.dtype == "float32" and not hasattr(model.config, "torch_dtype")
    assert load_checkpoint(str(saved)).config == TINY and LevitConfig.from_pretrained(saved).dtype == "float32"
    assert LevitConfig(torch_dtype="float16", dtype=torch.bfloat16).dtype == "bfloat16"


def test_the_ways_in_and_out_of_a_configuration(tmp_path):
    ours, theirs = LevitConfig(num_labels=3, image_size=96), transformers.LevitConfig(num_labels=3, image_size=96)
    known = ours.to_dict().keys()
    assert {name: value for name, value in theirs.to_dict().items() if name in known} == ours.to_dict()
    assert json.loads(ours.to_json_string()) == {
        name: value for name, value in json.loads(theirs.to_json_string()).items() if name in known
    }
    ours.to_json_file(tmp_path / "file.json")
    for again in (
        *(LevitConfig.from_dict(ours.to_dict()), LevitConfig.from_dict(theirs.to_dict())),
        *(LevitConfig(**ours.to_dict()), LevitConfig(**theirs.to_dict())),
        *(LevitConfig.from_json_file(tmp_path / "file.json"), LevitConfig.from_pretrained(tmp_path / "file.json")),
        LevitConfig.from_dict(json.loads(ours.to_json_string(use_diff=False))),
    ):
        assert again == ours
    theirs = transformers.LevitConfig.from_json_file(tmp_path / "file.json")
    assert theirs.num_labels == 3 and theirs.image_size == 96


@pytest.mark.parametrize(
    "changes", [{"num_labels": 5}, {"id2label": {0: "a", 1: "b"}}, {"output_hidden_states": True}, {"drop_path_rate": 1}]
)
def test_from_pretrained_replaces_what_it_is_told(saved, changes):
    ours, unused = LevitConfig.from_pretrained(saved, foo=False, return_unused_kwargs=True, **changes)
    theirs, others = transformers.LevitConfig.from_pretrained(saved, foo=False, return_unused_kwargs=True, **changes)
    assert unused == others == {"foo": False}
    for name in ("num_labels", "id2label", "output_hidden_states", "drop_path_rate"):
        assert getattr(ours, name) == getattr(theirs, name)
    with pytest.raises(TypeError, match="foo"):
        LevitConfig.from_pretrained(saved, foo=False)


@pytest.mark.parametrize("path", [None, "", 3, "no/such/place/at/all", "/nowhere.json"])
def test_no_checkpoint_is_our_error(path):
    for kind in (LevitConfig, LevitModel):
        with pytest.raises(CheckpointError):
            kind.from_pretrained(path)


def test_the_fine_tuning_recipe_of_transformers_documentation(saved):
    """Names to numbers as text, a head for other classes, steps of training, saved, and read by both."""
    labels = ["apple_pie", "baby_back_ribs", "baklava"]
    label2id = {label: str(index) for index, label in enumerate(labels)}
    id2label = {str(index): label for index, label in enumerate(labels)}
    options = {"num_labels": len(labels), "id2label": id2label, "label2id": label2id, "output_loading_info": True}
    answers = []
    for kind in (transformers.LevitForImageClassification, LevitForImageClassification):
        model, info = kind.from_pretrained(saved, ignore_mismatched_sizes=True, **options)
        answers.append({name: sorted(info[name]) for name in ("missing_keys", "unexpected_keys", "mismatched_keys")})
        assert [*model.config.id2label.values()] == labels and model(PIXELS).logits.shape == (3, 3)
        with pytest.raises((CheckpointError, RuntimeError)):
            kind.from_pretrained(saved, **options)
    assert model.config.id2label == dict(enumerate(labels)) and model.config.label2id["baklava"] == 2  # theirs stays text
    assert answers[0] == answers[1] and len(answers[0]["mismatched_keys"]) == 2

    optimizer, losses = torch.optim.AdamW(model.train().parameters(), lr=1e-3), []
    for _ in range(8):
        loss = model(pixel_values=PIXELS, labels=torch.tensor([0, 1, 2]))["loss"]
        loss.backward(), optimizer.step(), optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 2
    model.eval().save_pretrained(saved)
    assert config_of(saved)["problem_type"] == "single_label_classification"
    with torch.no_grad():
        expected = model(PIXELS).logits
        assert LevitForImageClassification.from_pretrained(saved)(PIXELS).logits.equal(expected)
        theirs = transformers.AutoModelForImageClassification.from_pretrained(saved).eval()
        torch.testing.assert_close(theirs(PIXELS).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kinds", [("multi_label_classification", 7), ("regression", 1)])
def test_the_kind_of_problem_is_kept_by_both(kinds, tmp_path):
    problem, count = kinds
    model = signal_model(TINY.changed(num_labels=count), heads=1)
    with torch.no_grad():
        model(PIXELS, labels=torch.ones(3, count))  # says it by its look
    model.save_pretrained(tmp_path)
    for kind in (LevitForImageClassification, transformers.LevitForImageClassification):
        assert kind.from_pretrained(tmp_path).config.problem_type == problem == model.config.problem_type


@pytest.mark.parametrize("dtype", [None, "auto", "float16", torch.bfloat16, torch.float64])
def test_dtypes(saved, dtype, tmp_path):
    ours = LevitForImageClassification.from_pretrained(saved, dtype=dtype)
    theirs = transformers.LevitForImageClassification.from_pretrained(saved, **{} if dtype is None else {"dtype": dtype})
    assert ours.dtype == theirs.dtype and ours.config.dtype == str(ours.dtype).removeprefix("torch.")  # theirs: the file's
    ours.save_pretrained(tmp_path / "again")
    assert config_of(tmp_path / "again")["dtype"] == ours.config.dtype
    again = transformers.LevitForImageClassification.from_pretrained(tmp_path / "again")
    assert again.dtype == ours.dtype
    assert LevitForImageClassification.from_pretrained(tmp_path / "again").dtype == torch.float32  # unless it says otherwise
    assert LevitForImageClassification.from_pretrained(tmp_path / "again", dtype="auto").dtype == ours.dtype


def test_options_that_make_no_sense_are_refused_by_name(saved):
    for dtype in ("int64", "float99", 3):
        with pytest.raises(CheckpointError, match="dtype is"):
            LevitModel.from_pretrained(saved, dtype=dtype)
    for option in ({"device_map": "auto"}, {"variant": "fp16"}, {"state_dict": {}}, {"num_label": 3}):
        with pytest.raises(TypeError, match=next(iter(option))):
            LevitModel.from_pretrained(saved, **option)


def test_under_the_meta_device_loading_says_why_it_cannot(saved):
    with torch.device("meta"), pytest.raises(CheckpointError, match="meta device.*LevitModel\\(config\\)"):
        LevitModel.from_pretrained(saved)
    with torch.device("meta"):
        assert LevitModel(TINY).device.type == "meta"


def test_a_subfolder_and_another_configuration(saved):
    assert LevitModel.from_pretrained(saved.parent, subfolder="saved").config == TINY
    assert LevitConfig.from_pretrained(saved.parent, subfolder="saved") == TINY
    other = TINY.with_labels(list("abcdefg"))
    assert LevitForImageClassification.from_pretrained(saved, config=other).config.class_names == list("abcdefg")
    with pytest.raises(CheckpointError, match="no subfolder none"):
        LevitModel.from_pretrained(saved.parent, subfolder="none")


@torch.no_grad()
def test_several_weight_files(tmp_path):
    """Written by either, read by either; in the index nothing may lead out of the folder."""
    model = signal_model(TINY, heads=2)
    model.save_pretrained(tmp_path / "ours", max_shard_size="100KB")
    theirs = transformers.LevitForImageClassificationWithTeacher.from_pretrained(tmp_path / "ours").eval()
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    for name in ("ours", "theirs"):
        assert not (tmp_path / name / "model.safetensors").exists() and len(list((tmp_path / name).glob("model-*"))) > 2
        loaded = load_checkpoint(str(tmp_path / name)).model
        assert loaded(PIXELS).logits.equal(model(PIXELS).logits)
    model.save_pretrained(tmp_path / "ours")
    assert [path.name for path in (tmp_path / "ours").glob("*.safetensors*")] == ["model.safetensors"]

    index = tmp_path / "theirs/model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    (tmp_path / "theirs" / places["classifier.linear.bias"]).unlink()
    with pytest.raises(CheckpointError, match=places["classifier.linear.bias"]):
        load_checkpoint(str(tmp_path / "theirs"))
    for wrong in (dict.fromkeys(places, "../ours/model.safetensors"), [], None):
        index.write_text(json.dumps({"weight_map": wrong}))
        with pytest.raises(CheckpointError, match="weight_map"):
            load_checkpoint(str(tmp_path / "theirs"))


def test_several_weight_files_on_the_hub(hub):
    folder = hub.folder / "models/org/sharded"
    shared_model().save_pretrained(folder, max_shard_size="100KB")
    assert load_checkpoint("org/sharded").digest == load_checkpoint(str(folder)).digest
    shared_model().save_pretrained(hub.folder / "models/org/deep/inside")
    assert LevitModel.from_pretrained("org/deep", subfolder="inside").config == TINY


def test_where_the_hub_is_looked_for(hub, tmp_path):
    shared_model().save_pretrained(hub.folder / "models/org/tiny")
    with pytest.raises(CheckpointError, match="local_files_only is set"):
        LevitModel.from_pretrained("org/tiny", local_files_only=True)
    assert LevitModel.from_pretrained("org/tiny", cache_dir=tmp_path / "own").config == TINY
    assert list((tmp_path / "own").glob("models--org--tiny"))
    asked = len(hub.requests)
    assert LevitConfig.from_pretrained("org/tiny", cache_dir=tmp_path / "own", local_files_only=True) == TINY
    assert len(hub.requests) == asked
    hub.gate("org/tiny"), hub.tokens.add("hf_good")
    with pytest.raises(CheckpointError, match="is gated"):
        LevitModel.from_pretrained("org/tiny", cache_dir=tmp_path / "other")
    assert LevitModel.from_pretrained("org/tiny", cache_dir=tmp_path / "other", token="hf_good").config == TINY


def test_saving_other_weights(tmp_path):
    model = shared_model(heads=1)
    twice = {name: tensor * 2 if tensor.is_floating_point() else tensor for name, tensor in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=twice)
    stored = load_file(tmp_path / "model.safetensors")
    assert all(stored[name].equal(tensor) for name, tensor in twice.items())
    with pytest.raises(CheckpointError, match="state_dict does not fit.*missing: classifier.linear.bias; unknown: extra"):
        twice["extra"] = twice.pop("classifier.linear.bias")
        model.save_pretrained(tmp_path, state_dict=twice)


@pytest.mark.parametrize("option", [{"variant": "fp16"}, {"safe_serialization": False}, {"foo": 1}, {"config": TINY}])
def test_options_of_saving_that_do_nothing_are_refused(option, tmp_path):
    with pytest.raises(TypeError, match=next(iter(option))):
        shared_model().save_pretrained(tmp_path, **option)
    assert not list(tmp_path.iterdir())
    with pytest.raises(TypeError, match="save first"):
        shared_model().save_pretrained(tmp_path, push_to_hub=True, state_dict={})


def test_a_file_is_no_folder_to_save_into(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="file is a file"):
        shared_model().save_pretrained(tmp_path / "file")


@pytest.mark.parametrize("channels", [1, 4])
@torch.no_grad()
def test_other_numbers_of_channels_save_and_load(channels, tmp_path):
    torch.manual_seed(0)
    model = LevitForImageClassification(TINY.changed(num_channels=channels)).eval()
    model.save_pretrained(tmp_path)
    pixels = torch.randn(2, channels, 64, 64)
    for kind in (LevitForImageClassification, transformers.LevitForImageClassification):
        torch.testing.assert_close(kind.from_pretrained(tmp_path).eval()(pixels).logits, model(pixels).logits)


def test_what_loading_leaves_out_is_reported_by_both(tmp_path):
    signal_model(TINY).save_pretrained(tmp_path)
    for name in ("LevitModel", "LevitForImageClassification", "LevitForImageClassificationWithTeacher"):
        ours = {kind.__name__: kind for kind in (LevitModel, LevitForImageClassification, LevitForImageClassificationWithTeacher)}
        _, info = ours[name].from_pretrained(tmp_path, output_loading_info=True)
        _, other = getattr(transformers, name).from_pretrained(tmp_path, output_loading_info=True)
        assert info.keys() == other.keys()
        assert {key: sorted(value) for key, value in info.items()} == {key: sorted(value) for key, value in other.items()}
    weights = load_file(tmp_path / "model.safetensors")
    save_file({n: t for n, t in weights.items() if "num_batches" not in n}, tmp_path / "model.safetensors", {"format": "pt"})
    _, info = LevitForImageClassificationWithTeacher.from_pretrained(tmp_path, output_loading_info=True)
    assert info["missing_keys"] and all(name.endswith("num_batches_tracked") for name in info["missing_keys"])


def test_auto_classes_and_pipelines_open_what_we_save(tmp_path):
    model = signal_model(TINY.with_labels(list("abcdefg")), heads=1)
    model.save_pretrained(tmp_path)
    assert type(transformers.AutoConfig.from_pretrained(tmp_path)) is transformers.LevitConfig
    assert type(transformers.AutoModel.from_pretrained(tmp_path)) is transformers.LevitModel
    assert transformers.AutoImageProcessor.from_pretrained(tmp_path).crop_size["height"] == 64
    image = Image.fromarray(photographs(1, 100)[0])
    theirs = transformers.pipeline("image-classification", str(tmp_path))(image)
    ours = transformers.pipeline("image-classification", model, image_processor=LevitImageProcessor.from_pretrained(tmp_path))
    for one, other in zip(ours(image), theirs, strict=True):
        assert one["label"] == other["label"] and abs(one["score"] - other["score"]) < 0.01  # two kinds of resizing


def test_a_user_can_register_our_classes(tmp_path, monkeypatch):
    from transformers import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING, MODEL_MAPPING
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for mapping in (CONFIG_MAPPING, MODEL_MAPPING, MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING):
        monkeypatch.setattr(mapping, "_extra_content", dict(mapping._extra_content))
    signal_model(TINY, heads=1).save_pretrained(tmp_path)
    transformers.AutoConfig.register("levit", LevitConfig, exist_ok=True)
    transformers.AutoModel.register(LevitConfig, LevitModel, exist_ok=True)
    transformers.AutoModelForImageClassification.register(LevitConfig, LevitForImageClassification, exist_ok=True)
    assert type(transformers.AutoConfig.from_pretrained(tmp_path)) is LevitConfig
    assert type(transformers.AutoModel.from_pretrained(tmp_path)) is LevitModel
    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path, num_labels=3, ignore_mismatched_sizes=True)
    assert type(model) is LevitForImageClassification and model.config.num_labels == 3
