import json

import pytest
import torch
import transformers

from levit_batch.errors import CheckpointError
from levit_batch.levit.config import LevitConfig
from levit_batch.levit.model import LevitForImageClassification
from levit_batch.levit.variants import VARIANTS
from tests.support.models import TINY


def test_defaults_are_transformers_defaults():
    ours, theirs = LevitConfig().to_dict(), transformers.LevitConfig().to_dict()
    assert {name: theirs[name] for name in ours.keys() - {"id2label", "label2id"}} == {
        name: ours[name] for name in ours.keys() - {"id2label", "label2id"}
    }
    assert theirs["id2label"] == {int(index): name for index, name in ours["id2label"].items()}


@pytest.mark.parametrize("config", [*VARIANTS.values(), TINY.with_labels(["cat", "dog"])])
def test_round_trip(config, tmp_path):
    config.save_pretrained(tmp_path)
    assert LevitConfig.from_dict(json.loads((tmp_path / "config.json").read_text())) == config


def test_what_transformers_wrote_after_a_build_is_read(tmp_path):
    theirs = transformers.LevitConfig(hidden_sizes=[32, 48, 64], num_attention_heads=[2, 3, 4], key_dim=[8, 8, 8])
    transformers.LevitForImageClassification(theirs)
    transformers.LevitForImageClassification(theirs)
    theirs.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["down_ops"][2:] == [[""], [""]]
    assert LevitConfig.from_dict(written).down_ops == (("Subsample", 8, 4, 4, 2, 2), ("Subsample", 8, 6, 4, 2, 2))


def test_each_of_the_three_label_fields_gives_the_others():
    by_name = LevitConfig(label2id={"cat": 0, "dog": 1, "cow": 2})
    assert by_name == LevitConfig(id2label={"0": "cat", "1": "dog", "2": "cow"}) and by_name.num_labels == 3
    assert LevitConfig(num_labels=2).class_names == ["LABEL_0", "LABEL_1"]
    assert by_name.has_own_class_names and not LevitConfig(num_labels=2).has_own_class_names


def test_a_model_takes_a_copy_of_its_configuration_and_shares_it_with_its_backbone():
    given = LevitConfig(**vars(TINY))
    model = LevitForImageClassification(given)
    model.config.output_hidden_states = True
    assert model.levit.config is model.config and given == TINY
    assert len(model.eval()(torch.zeros(1, 3, 64, 64)).hidden_states) == 4


def test_labels_set_later_agree_with_each_other():
    config = LevitConfig(num_labels=3)
    config.id2label = {"0": "cat", "1": "dog"}
    assert (config.num_labels, config.label2id) == (2, {"cat": 0, "dog": 1})
    config.num_labels = 2
    assert config.class_names == ["cat", "dog"]
    config.num_labels = 4
    assert config.id2label[3] == "LABEL_3" and config.label2id["LABEL_3"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 230}, "multiple of patch_size"),
        ({"image_size": [224, 256]}, "not square"),
        ({"stride": 1}, "makes a grid of 224"),
        ({"depths": [4, 4]}, "depths has 2"),
        ({"down_ops": [["Subsample", 16, 8, 4, 2, 2]]}, "2 'Subsample' entries"),
        ({"id2label": {0: "a", 2: "b"}}, "without gaps"),
        ({"id2label": {0: "a"}, "num_labels": 2}, "names 1 classes"),
        ({"model_type": "vit"}, "not a LeViT"),
        ({"hidden_sizes": 128}, "hidden_sizes must hold a number for each stage"),
        ({"depths": [4, 4.5, 4]}, "depths must be whole"),
        ({"stride": 0}, "stride must be whole, at least 1"),
        ({"patch_size": "16"}, "patch_size 16 is not square"),
        ({"problem_type": "ranking"}, "problem_type must be one of"),
        ({"problem_type": "single_label_classification", "id2label": {0: "a"}}, "two classes or more"),
        ({"check": 1}, "cannot have a value named check"),
    ],
)
def test_contradictions_are_named(change, message):
    with pytest.raises(CheckpointError, match=message):
        LevitConfig.from_dict(LevitConfig().to_dict() | change)
