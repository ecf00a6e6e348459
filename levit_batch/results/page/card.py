"""The output's README.md: a Hugging Face dataset card, which makes the folder a dataset that `load_dataset` opens."""

import contextlib
import re
from typing import Any

import pyarrow as pa
import yaml

from levit_batch.errors import OutputError
from levit_batch.job.row import VALUE_NAMES, features
from levit_batch.results.page.templates import environment, public_config
from levit_batch.results.wording import against, unmatched
from levit_batch.table.output import CARD_MARK, Output
from levit_batch.table.read import first_file, schema_of

BEGIN = f"{CARD_MARK} begin (this part is written anew by each run) -->"
END = "<!-- levit-batch: end -->"
FRONT = re.compile(r"\A---\r?\n(?P<yaml>.*?)\r?\n---\r?\n", re.DOTALL)
SIZES = (("n<1K", 1e3), ("1K<n<10K", 1e4), ("10K<n<100K", 1e5), ("100K<n<1M", 1e6), ("1M<n<10M", 1e7),
         ("10M<n<100M", 1e8), ("100M<n<1B", 1e9), ("1B<n<10B", 1e10), ("10B<n<100B", 1e11), ("100B<n<1T", 1e12))  # fmt: skip
MEANINGS = {
    "shard": "source file, relative to what the job was given",
    "row": "row in that file, from 0",
    "target": "the truth as a class number, counted like `label`",
    "label": "the most probable class",
    "label_name": "its name",
    "score": "its probability: softmax of the logits",
    "top_labels": "the most probable classes, best first",
    "top_scores": "their probabilities",
    "embedding": "pooled features before the heads",
    "logits": "the logit of every class",
    "head_label": "what the class head says alone",
    "distill_label": "what the distillation head says alone",
    "head_divergence": "Jensen-Shannon divergence of the two heads, in bits",
    "image_hash": "XXH3 (128 bits) of the encoded image: equal for the same file",
    "image_phash": "64 bits of what it looks like (imagehash's phash): few differ between copies",
    "error": "why the row has no prediction (`kind: message`), else null; then lists hold nulls",
}


def write_card(output: Output, job: dict[str, Any], metrics: dict[str, Any]) -> bool:
    """Write or renew `README.md`; False when there is one that is not ours, which is left as it is.

    What a user adds (a licence in the front matter, text outside the marked part) is kept. Needs one chunk file at least.
    """
    at = output.place.join("README.md")
    before = at.read_bytes().decode() if at.exists() else None
    if before is not None and BEGIN not in before:
        return False
    output.write("README.md", render_card(output, job, metrics, before).encode())
    return True


def render_card(output: Output, job: dict[str, Any], metrics: dict[str, Any], before: str | None = None) -> str:
    """The card's text; from the card `before`, everything that is the user's own is taken over."""
    front, body = _split(before) if before else ({}, f"{BEGIN}{END}\n")
    schema = pa.schema([])
    with contextlib.suppress(OutputError):  # a table without rows has no file
        schema = schema_of(first_file(output))
    front |= {"configs": [_data_files(output, job)], "size_categories": [_size(metrics["rows"])]}
    if (features := _features(schema, job)) is not None:
        front["dataset_info"] = {"features": features}
    front.setdefault("tags", ["levit", "levit-batch", "image-classification", "embeddings"])
    start, stop = body.index(BEGIN), body.find(END)
    after = body[stop + len(END) :] if stop >= 0 else "\n"
    text = yaml.safe_dump(front, sort_keys=False, allow_unicode=True)
    return f"---\n{text}---\n{body[:start]}{BEGIN}\n{_body(output, job, metrics, schema)}\n{END}{after}"


def _split(card: str) -> tuple[dict[str, Any], str]:
    match = FRONT.match(card)
    try:
        front = yaml.safe_load(match["yaml"]) if match else {}
    except yaml.YAMLError:
        front = {}
    return (front if isinstance(front, dict) else {}), card[match.end() :] if match else card


def split_name(job: dict[str, Any]) -> str:
    """The split under which `load_dataset` offers the rows: the source's own where that is a plain name."""
    split = job.get("config", {}).get("source", {}).get("split")
    return split if split and re.fullmatch(r"\w+(?:\.\w+)*", split) else "train"


def _data_files(output: Output, job: dict[str, Any]) -> dict[str, Any]:
    files = [{"split": split_name(job), "path": f"data/**/*{output.ending}"}]
    return {"config_name": "default", "data_files": files}


def _features(schema: pa.Schema, job: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The columns as a card has them, which is where `load_dataset` finds the class names; None where `datasets` does not know
    one of their types. What the source says of kept columns is left out where `datasets` does not understand it."""
    import datasets

    for kept in (job.get("kept_features", {}), {}):
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            known = datasets.Features.from_dict(features(schema, job["class_names"], kept))
            card = datasets.info.DatasetCardData()
            datasets.info.DatasetInfosDict(default=datasets.DatasetInfo(features=known)).to_dataset_card_data(card)
            return _once(card.to_dict()["dataset_info"]["features"], [])
    return None


def _once(value: Any, seen: list[Any]) -> Any:
    """`value` with each set of class names that equals one of `seen` made the same object, which YAML then refers to."""
    if isinstance(value, list):
        return [_once(one, seen) for one in value]
    if not isinstance(value, dict):
        return value
    if "class_label" in value:
        seen += [] if value["class_label"] in seen else [value["class_label"]]
        return value | {"class_label": seen[seen.index(value["class_label"])]}
    return {key: _once(one, seen) for key, one in value.items()}


def _size(rows: int) -> str:
    return next((name for name, limit in SIZES if rows < limit), "n>1T")


def _body(output: Output, job: dict[str, Any], metrics: dict[str, Any], schema: pa.Schema) -> str:
    config = public_config(job["config"])
    path = config["source"]["path"]
    # A card is Markdown, where HTML is not escaped for us: the template's own escaping does it.
    return environment().get_template("card.md").render(
        job=job, config=config, metrics=metrics, columns=_columns(schema), ending=output.ending, split=split_name(job),
        against=against(metrics), unmatched=unmatched(metrics), source=path if isinstance(path, str) else ", ".join(path),
    ).strip()  # fmt: skip


def _columns(schema: pa.Schema) -> list[dict[str, str]]:
    kept = "carried over from the source"
    return [{"name": f.name, "type": _type(f.type), "meaning": MEANINGS.get(f.name, kept)} for f in schema]


def _type(kind: pa.DataType) -> str:
    """A type without angle brackets, which Markdown would take for HTML."""
    if pa.types.is_fixed_size_list(kind):
        return f"{_type(kind.value_type)}[{kind.list_size}]"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"{_type(kind.value_type)}[]"
    name = VALUE_NAMES.get(str(kind), str(kind))
    return name.replace("<", "(").replace(">", ")")
