import pytest
import yaml

from levit_batch.errors import ConfigError
from levit_batch.job.config import JobConfig
from levit_batch.job.load import load_config
from levit_batch.training.config import FinetuneConfig
from tests.support import CONFIGS

BASE = {"source": {"path": "data"}, "model": {"checkpoint": "a/b"}, "output": {"path": "out"}}


def write(tmp_path, **sections):
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump({key: BASE.get(key, {}) | sections.get(key, {}) for key in {*BASE, *sections}}))
    return str(file)


def test_defaults_are_the_contract(tmp_path):
    config = load_config(write(tmp_path))
    assert (config.pipeline, config.source.type, config.source.image_column) == ("label", "parquet", "image")
    assert (config.model.heads, config.model.dtype, config.predict.top_k) == ("average", "auto", 5)
    assert (config.predict.embeddings, config.output.max_error_rate) == ("float16", 0.01)
    assert (config.compute.replicas, config.compute.chunk_rows, config.compute.address) == ("auto", 2048, None)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("model.checkpoint=facebook/levit-384", "model.checkpoint", "facebook/levit-384"),
        ("compute.replicas=8", "compute.replicas", 8),
        ("compute.replicas={min: 1, max: 8}", "compute.replicas.max", 8),
        ("predict.logits=true", "predict.logits", True),
        ("source.keep_columns=[a, b.c]", "source.keep_columns", ["a", "b.c"]),
        ("model.revision=1234567", "model.revision", "1234567"),
        ("model.revision=1e3", "model.revision", "1e3"),
        ("source.split=null", "source.split", None),
        ("source.limit=10", "source.limit", 10),
    ],
)
def test_set_is_typed_by_the_schema(tmp_path, override, key, value):
    found = load_config(write(tmp_path), [override])
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value and type(found) is type(value)


def test_variables_expand_in_values(tmp_path, monkeypatch):
    monkeypatch.setenv("LB_DATA", "s3://bucket/x")
    monkeypatch.delenv("LB_NONE", raising=False)
    file = write(tmp_path, source={"path": "${LB_DATA}/*.parquet"}, compute={"replicas": "${LB_NONE:-4}"})
    config = load_config(file)
    assert config.source.path == "s3://bucket/x/*.parquet" and config.compute.replicas == 4
    with pytest.raises(ConfigError, match=r"output\.path: the environment variable LB_NONE is not set"):
        load_config(file, ["output.path=${LB_NONE}"])


@pytest.mark.parametrize(
    ("sections", "override", "message"),
    [
        ({"source": {"imag_column": "x"}}, [], r"unknown key source\.imag_column: did you mean image_column\?"),
        ({"sourse": {"path": "x"}}, [], r"unknown key sourse: did you mean source\?"),
        ({}, ["compute.chunk_row=5"], r"unknown key compute\.chunk_row: did you mean chunk_rows\?"),
        ({"model": {"heads": "avg"}}, [], r"model\.heads: 'avg' should be 'average', 'class' or 'distill'"),
        ({"compute": {"replicas": "many"}}, [], r"compute\.replicas: 'many' should be 'auto' or"),
        ({"compute": {"replicas": {"min": 3, "max": 2}}}, [], r"yaml: compute\.replicas: min \(3\) is more than max \(2\)$"),
        ({"compute": {"replicas": 0}}, [], r"replicas: 0 should be 'auto' or greater than 0 or a mapping of min, max$"),
        ({}, ["compute=3"], r"compute: 3 should be a mapping of engine, address, replicas, \.\.\.$"),
        ({"source": {"limit": 0}}, [], r"source\.limit: 0 should be greater than 0"),
        ({"output": {"path": None}}, [], r"output\.path"),
        ({"output": {"path": "hf://datasets/me/labels"}}, [], r"output\.path.*each chunk would be a commit.*levit-batch push"),
        ({"output": {"path": "hf://buckets/me/labels"}}, [], r"output\.path.*where it is mounted"),
        ({}, ["source"], r"--set source: write it as section\.key=value"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path, sections, override, message):
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write(tmp_path, **sections), override)
    assert "\n" not in str(caught.value) and "job.yaml" in str(caught.value) or override


def test_a_configuration_of_another_command_is_named_as_such():
    stored, demo = (str(CONFIGS / f"{name}.yaml") for name in ("finetune_stored", "demo"))
    with pytest.raises(ConfigError, match="stored.yaml: this is a configuration for `levit-batch finetune`, not for `.* run`$"):
        load_config(stored)
    with pytest.raises(ConfigError, match="demo.yaml: this is a configuration for `levit-batch run`, not for `.* finetune`$"):
        load_config(demo, schema=FinetuneConfig)


def test_a_configuration_that_names_no_recipe_is_known_by_its_sections(tmp_path):
    with pytest.raises(ConfigError, match="this is a configuration for `levit-batch finetune`"):
        load_config(write(tmp_path, train={"epochs": 2}))
    with pytest.raises(ConfigError, match="this is a configuration for `levit-batch run`"):
        load_config(write(tmp_path, predict={"top_k": 2}), schema=FinetuneConfig)
    assert load_config(write(tmp_path, source={"target_column": "t"}), schema=FinetuneConfig).pipeline == "finetune"


def test_keys_that_do_not_go_together_are_told_without_all_others(tmp_path):
    file = write(tmp_path)
    with pytest.raises(ConfigError, match=r"job.yaml: source: target_column is required for training: name the column[^{]*$"):
        load_config(file, schema=FinetuneConfig)
    with pytest.raises(ConfigError, match=r"job.yaml: train.early_stopping needs validation.fraction above 0[^{]*$"):
        load_config(file, ["source.target_column=t", "train.early_stopping=2", "validation.fraction=0"], FinetuneConfig)


def test_a_missing_section_is_required(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("source: {path: x}\nmodel: {checkpoint: y}\n")
    with pytest.raises(ConfigError, match="output is required"):
        load_config(str(file))


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no such file in"):
        load_config(str(tmp_path / "none.yaml"))
    file = tmp_path / "bad.yaml"
    file.write_text("a: [1\nb: 2")
    with pytest.raises(ConfigError, match=r"bad\.yaml, line 2: not valid YAML"):
        load_config(str(file))
    file.write_text("- a\n")
    with pytest.raises(ConfigError, match="must be a mapping"):
        load_config(str(file))


def test_the_configuration_is_frozen(tmp_path):
    with pytest.raises(ValueError, match="frozen"):
        load_config(write(tmp_path)).source.path = "other"


def test_every_option_is_typed_in_the_json_schema():
    schema = JobConfig.model_json_schema()
    assert set(schema["properties"]) >= {"source", "model", "predict", "output", "compute"}
    assert schema["$defs"]["SourceConfig"]["additionalProperties"] is False
