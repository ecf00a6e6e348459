"""What a row is: the columns, their Arrow types, and the metadata that tells other readers the class names.

Stages meet here: a source yields tables of the columns named below, the writer takes `output_schema`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from levit_batch.errors import ConfigError, OutputError

SCHEMA_VERSION = 2

# Class numbers are int64 because a Hugging Face ClassLabel is: a narrower column would lose its class names there.
CLASS = pa.int64()

# What `Source.read` yields for each row. Names that no column of the user gets: kept columns travel by their place.
IMAGE_BYTES = "__bytes"  # binary or large_binary: the encoded image; null where `__error` says why
READ_ERROR = "__error"  # string "kind: message", or null
TARGET = "__target"  # the truth as the source has it, when asked for
IMAGE_HASH, IMAGE_PHASH = "__hash", "__phash"  # with `predict.hash`: added where the image is decoded
KEPT = "__kept_{}"  # each of `source.keep_columns`, by its place there

FINGERPRINT = b"levit_batch.fingerprint"  # in the metadata of every file of an output: the job that it belongs to

# Arrow types that `datasets` calls otherwise.
VALUE_NAMES = {
    "halffloat": "float16", "float": "float32", "double": "float64", "date32[day]": "date32", "date64[ms]": "date64",
}  # fmt: skip

RESERVED = (
    "shard", "row", "target", "label", "label_name", "score", "top_labels", "top_scores", "embedding", "logits",
    "head_label", "distill_label", "head_divergence", "image_hash", "image_phash", "error",
)  # fmt: skip


def check_version(job: dict[str, Any], where: str) -> None:
    """Raises OutputError when `job` (job.json) is of an output whose files this version does not find."""
    if (version := job.get("schema_version")) != SCHEMA_VERSION:
        older = "the first" if version == 1 else "another"
        raise OutputError(
            f"output.path: {where} was written by {older} version of levit-batch, whose folders are named otherwise: label "
            "into another output.path, or start afresh with --overwrite, which deletes its results"
        )


@dataclass(frozen=True)
class RowSpec:
    """What one output row holds: fixed for a job, known before the first image is read."""

    class_names: tuple[str, ...]
    embedding_width: int
    top_k: int
    embeddings: str  # float16 | float32 | none
    logits: bool
    per_head: bool
    kept: pa.Schema  # the kept columns: named as in the source, typed as they are written
    target: pa.DataType | None  # an integer, or a list of integers for several truths a row
    hash: bool = False

    @property
    def classes(self) -> int:
        return len(self.class_names)


def kept_name(column: str) -> str:
    """The output name of a kept column: its own, unless that is one of ours, in whatever case."""
    return f"source_{column}" if column.lower() in RESERVED else column


def check_kept_names(columns: Sequence[str]) -> None:
    """Raises ConfigError when two kept columns would have one output name. Case does not count, as in DuckDB."""
    taken: dict[str, str] = {}
    for column in columns:
        name = kept_name(column)
        if name.lower() in taken:
            raise ConfigError(
                f"source.keep_columns: {taken[name.lower()]} and {column} would both be called {name} in the output "
                "(DuckDB and others do not tell names apart by case); keep one of them"
            )
        taken[name.lower()] = column


def output_schema(spec: RowSpec) -> pa.Schema:
    """The Arrow schema of every output file, with Hugging Face features in its metadata (which Parquet files leave out)."""
    k, d, c = spec.top_k, spec.embedding_width, spec.classes
    fields = [pa.field("shard", pa.string()), pa.field("row", pa.int64())]
    fields += [field.with_name(kept_name(field.name)).with_nullable(True) for field in spec.kept]
    if spec.target is not None:
        fields.append(pa.field("target", pa.list_(CLASS) if pa.types.is_nested(spec.target) else CLASS))
    fields += [
        pa.field("label", CLASS),
        pa.field("label_name", pa.string()),
        pa.field("score", pa.float32()),
        pa.field("top_labels", pa.list_(CLASS, k)),
        pa.field("top_scores", pa.list_(pa.float32(), k)),
    ]
    if spec.embeddings != "none":
        width = pa.float16() if spec.embeddings == "float16" else pa.float32()
        fields.append(pa.field("embedding", pa.list_(width, d)))
    if spec.logits:
        fields.append(pa.field("logits", pa.list_(pa.float32(), c)))
    if spec.per_head:
        fields += [pa.field("head_label", CLASS), pa.field("distill_label", CLASS)]
        fields.append(pa.field("head_divergence", pa.float32()))
    if spec.hash:
        fields += [pa.field("image_hash", pa.string()), pa.field("image_phash", pa.int64())]
    fields.append(pa.field("error", pa.string()))
    schema = pa.schema(fields)
    return with_features(schema, features(schema, spec.class_names, kept_features(spec.kept)))


def with_features(schema: pa.Schema, features: dict[str, Any]) -> pa.Schema:
    return schema.with_metadata({**(schema.metadata or {}), b"huggingface": json.dumps({"info": {"features": features}})})


def features(schema: pa.Schema, class_names: Sequence[str], kept: dict[str, Any]) -> dict[str, Any]:
    """The Hugging Face `features` of `schema` as JSON values; class columns carry the class names.

    kept: what the source says of the kept columns, see `kept_features`. `top_labels` has no names: it counts as `label` does.
    """
    classes = {"names": list(class_names), "_type": "ClassLabel"}
    known = dict(kept)
    for field in schema:
        if field.name in ("label", "head_label", "distill_label", "target") and field.type == CLASS:
            known[field.name] = classes
        elif field.name == "target":
            known[field.name] = {"feature": classes, "_type": "Sequence"}
        elif field.name not in known:
            known[field.name] = feature_of(field.type)
    return {name: known[name] for name in schema.names}


def features_of(schema: pa.Schema, job: dict[str, Any]) -> dict[str, Any]:
    """The `features` of an output's files, by their schema and its `job.json`."""
    return features(schema, job["class_names"], job.get("kept_features", {}))


def kept_features(kept: pa.Schema) -> dict[str, Any]:
    """What the source's own metadata says of the kept columns, by their names in the output."""
    return {kept_name(name): feature for name, feature in source_features(kept).items()}


def source_features(kept: pa.Schema) -> dict[str, Any]:
    """What the source's own metadata says of the kept columns."""
    try:
        features = json.loads((kept.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: features[name] for name in kept.names if isinstance(features.get(name), (dict, list))}


def feature_of(kind: pa.DataType) -> Any:
    """The Hugging Face feature of an Arrow type, as `datasets.Features.from_dict` takes it."""
    if pa.types.is_fixed_size_list(kind):
        return {"feature": feature_of(kind.value_type), "length": kind.list_size, "_type": "Sequence"}
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        name = "LargeList" if pa.types.is_large_list(kind) else "Sequence"
        return {"feature": feature_of(kind.value_type), "_type": name}
    if pa.types.is_struct(kind):
        return {field.name: feature_of(field.type) for field in kind}
    if pa.types.is_dictionary(kind):
        return feature_of(kind.value_type)
    return {"dtype": VALUE_NAMES.get(str(kind), str(kind)), "_type": "Value"}
