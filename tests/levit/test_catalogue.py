import json
import subprocess
import sys

import pytest

from levit_batch.errors import CheckpointError
from levit_batch.levit import catalogue as models
from levit_batch.levit.config import LevitConfig
from levit_batch.levit.cost import cost
from levit_batch.levit.model import LevitForImageClassification, LevitForImageClassificationWithTeacher
from levit_batch.levit.variants import VARIANTS
from pipelines.cli import main
from tests.support.models import TINY, shared_model


@pytest.fixture
def hub(hub, tmp_path, monkeypatch):
    shared_model().save_pretrained(hub.folder / "models/org/tiny")
    monkeypatch.chdir(tmp_path)
    return hub


@pytest.mark.parametrize("config", [TINY, VARIANTS["128S"], LevitConfig(mlp_ratio=(0, 2, 3), num_labels=5)])
def test_parameters_are_those_of_the_model(config):
    for heads, kind in ((1, LevitForImageClassification), (2, LevitForImageClassificationWithTeacher)):
        assert cost(config, heads).parameters == sum(p.numel() for p in kind(config).parameters())


def test_flops_are_the_papers():
    published = {"128S": 305, "128": 406, "192": 658, "384": 2353}  # it rounds 256's 1128 to 1120
    assert {name: round(cost(VARIANTS[name]).macs / 1e6) for name in published} == published
    assert round(cost(VARIANTS["256"]).macs / 1e6) == 1128


def test_the_table_says_what_is_counted():
    for one in models.PUBLISHED:
        counted = cost(VARIANTS[one.name])
        assert (one.parameters, one.macs) == (counted.parameters, counted.macs)
        assert one.embedding == VARIANTS[one.name].embedding_size


def test_the_list(capsys):
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    for name in VARIANTS:
        assert f"facebook/levit-{name}" in text
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[3] == {
        "name": "256",
        "hub_id": "facebook/levit-256",
        "parameters": 18893876,
        "macs": 1128024056,
        "embedding": 512,
        "published_top1": 81.6,
    }


def test_one_checkpoint(capsys, tmp_path):
    shared_model(heads=1).save_pretrained(tmp_path)
    assert main(["models", str(tmp_path), "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["heads"], described["classes"], described["class"]) == (1, 7, "LevitForImageClassification")
    assert described["variant"].startswith("custom") and described["preprocessing"]["crop_size"] == {"height": 64, "width": 64}
    assert main(["models", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert described["digest"] in text and "LABEL_0, LABEL_1" in text and "shortest_edge" in text


def test_a_published_size_is_recognised_with_other_classes():
    assert models.variant_of(VARIANTS["192"].with_labels(["a", "b"])) == "192"
    assert models.variant_of(TINY).startswith("custom")


def test_fetch_stores_a_checkpoint_that_needs_no_network(hub, capsys, tmp_path):
    assert main(["models", "--fetch", "org/tiny", "stored", "--json"]) == 0
    fetched = json.loads(capsys.readouterr().out)
    hub.fail_every(1)
    stored = models.describe(str(tmp_path / "stored"))
    assert fetched["folder"] == "stored" and fetched["digest"] == stored["digest"]
    hub.fail_every(0)
    assert main(["models", "--fetch", "org/tiny"]) == 0 and (tmp_path / "tiny/model.safetensors").exists()
    models.fetch("org/tiny")  # again is fine


def test_fetch_does_not_write_into_a_folder_of_the_users(hub, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="mine exists"):
        models.fetch("org/tiny", "mine")
    assert main(["models", "--fetch", "org/none", "other"]) == 2


def test_help_and_the_list_need_neither_torch_nor_ray():
    code = "import sys; from pipelines.cli import main; main(['models']); print({'torch', 'ray'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
