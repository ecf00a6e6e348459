"""The dataset card: the folder opens with `load_dataset`, and what users add to the card stays."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from levit_batch.results.metrics import measure
from levit_batch.results.page.card import BEGIN, render_card, write_card
from levit_batch.results.page.report import render
from levit_batch.table.read import runs_of
from tests.support.outputs import CLASSES, make_output


@pytest.mark.parametrize("format", ["parquet", "arrow"])
@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_load_dataset_opens_the_folder(tmp_path, format, precision):
    made = make_output(tmp_path, format=format, embeddings=precision)
    assert write_card(made.output, made.job, measure(made.output))
    found = datasets.load_dataset(str(made.path), cache_dir=str(tmp_path / "cache"))
    assert list(found) == ["train"] and found["train"].num_rows == 120
    rows = found["train"]
    assert rows.features["label"].names == rows.features["target"].names == list(CLASSES)
    assert rows.features["embedding"] == datasets.List(datasets.Value(precision), length=8)
    assert rows["label"][:] == made.table["label"].to_pylist()
    assert rows[39]["error"] == "decode: not an image" and rows[39]["embedding"] == [None] * 8
    streamed = datasets.load_dataset(str(made.path), streaming=True, split="train")
    assert next(iter(streamed))["label"] == made.table["label"][0].as_py()


def test_class_names_stand_in_the_card_once(tmp_path):
    made = make_output(tmp_path, per_head=True)
    write_card(made.output, made.job, measure(made.output))
    assert (text := (made.path / "README.md").read_text()).count("grey, light") == 1
    assert "| `target` | `int64` | the truth as a class number, counted like `label` |" in text
    rows = datasets.load_dataset(str(made.path), split="train", cache_dir=str(tmp_path / "cache"))
    for name in ("label", "target", "head_label", "distill_label"):
        assert rows.features[name].names == list(CLASSES), name
    assert write_card(made.output, made.job, measure(made.output))  # over what it wrote itself
    assert (made.path / "README.md").read_text().count("grey, light") == 1


def test_what_the_source_says_of_kept_columns_stands_in_the_card(tmp_path):
    kind = {"names": ["dull", "bright"], "_type": "ClassLabel"}
    make_output(tmp_path)
    for file in (tmp_path / "source").iterdir():
        rows = pq.read_table(file)
        rows = rows.set_column(1, "note", pa.array([i % 2 for i in range(len(rows))]))
        said = {"huggingface": json.dumps({"info": {"features": {"note": kind}}})}
        pq.write_table(rows.replace_schema_metadata(said), file)
    made = make_output(tmp_path, name="again")
    write_card(made.output, made.job, measure(made.output))
    assert datasets.load_dataset(str(made.path), split="train", streaming=True).features["note"].names == kind["names"]
    job = made.job | {"kept_features": {"note": {"_type": "OfAnotherDay"}}}
    write_card(made.output, job, measure(made.output))
    found = datasets.load_dataset(str(made.path), split="train", streaming=True).features
    assert found["note"] == datasets.Value("int64") and found["label"].names == list(CLASSES)


def test_the_split_is_the_sources(tmp_path):
    made = make_output(tmp_path)
    job = made.job
    job["config"]["source"]["split"] = "validation"
    write_card(made.output, job, measure(made.output))
    assert datasets.load_dataset(str(made.path), split="validation", streaming=True).features["label"].num_classes == 4


def test_the_card_says_what_the_table_is(tmp_path):
    made = make_output(tmp_path, per_head=True, logits=True)
    metrics = measure(made.output)
    write_card(made.output, made.job, metrics)
    card = DatasetCard.load(made.path / "README.md")
    assert card.data.to_dict()["size_categories"] == ["n<1K"] and card.data.license is None
    for name in made.table.schema.names:
        assert f"| `{name}` |" in card.text, name
    assert "`float16[8]`" in card.text and "`facebook/levit-128S`" in card.text
    assert f"{metrics['top1'] * 100:.1f}%" in card.text and str(tmp_path) not in card.text


def test_card_and_page_name_no_private_folder_and_nobody_to_tell(tmp_path):
    made = make_output(tmp_path)
    job, private = made.job, str(tmp_path)
    job["config"]["model"]["checkpoint"] = f"{private}/my model/levit"
    job["config"]["source"]["root"] = f"file://{private}/root"
    job["config"]["notify"]["command"] = ["curl", "-H", "X-Api-Key: T0K3N", "https://hooks.example/T0K3N"]
    metrics, failed = measure(made.output), [{"chunk": "x", "reason": f"OSError: {private}/source/x.parquet is gone"}]
    run = runs_of(made.output)[-1] | {"failed": failed}
    card, page = render_card(made.output, job, metrics), render(str(made.output), job, [run], metrics, [])
    assert all(word not in text for word in (private, "T0K3N") for text in (card, page))
    assert "`…/source/*.parquet`" in card and "`…/levit`" in card and "…/source/*.parquet" in page


def test_what_the_user_adds_stays(tmp_path):
    made = make_output(tmp_path)
    write_card(made.output, made.job, measure(made.output))
    file = made.path / "README.md"
    text = file.read_text().replace("---\nconfigs:", "---\nlicense: cc-by-4.0\nconfigs:", 1) + "\nMy own words.\n"
    file.write_text(text)
    assert write_card(made.output, made.job, measure(made.output) | {"rows": 5000})
    card = DatasetCard.load(file)
    assert card.data.license == "cc-by-4.0" and card.data.to_dict()["size_categories"] == ["1K<n<10K"]
    assert card.text.endswith("\nMy own words.\n") and "| Rows | 5,000 |" in card.text and card.text.count(BEGIN) == 1


def test_a_readme_that_is_not_ours_is_left_alone(tmp_path):
    made = make_output(tmp_path)
    (made.path / "README.md").write_text("# mine\n")
    assert not write_card(made.output, made.job, measure(made.output))
    assert (made.path / "README.md").read_text() == "# mine\n"


@pytest.mark.parametrize("ours", [True, False])
def test_overwrite_deletes_our_card_only(tmp_path, ours):
    made = make_output(tmp_path)
    if ours:
        write_card(made.output, made.job, measure(made.output))
    else:
        (made.path / "README.md").write_text("# mine\n")
    made.output.delete(made.output.own_files())
    assert (made.path / "README.md").exists() != ours and not (made.path / "data").exists()
