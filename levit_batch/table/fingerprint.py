"""What a job is, once its checkpoint and source are known: everything that changes a row, and the hash of it."""

import base64
import hashlib
import importlib.metadata
import json
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from levit_batch.errors import ConfigError, OutputError
from levit_batch.job.config import JobConfig, SourceConfig
from levit_batch.job.row import SCHEMA_VERSION, RowSpec, check_version, kept_features
from levit_batch.storage.find import base_of
from levit_batch.storage.redact import redact, stored_address
from levit_batch.table.output import DATA, ENDINGS, STAGING, Output
from levit_batch.table.places import meet, normal, paths_of, places_of, whole

SOURCE_KEYS = ("type", "name", "split", "image_column", "target_column", "keep_columns")
# Keys that change no finished row by themselves but name what does, or are not compared.
KEPT_TYPES = "kept_types"  # of job.json: see `kept_types.py`
APART = ("model.checkpoint", "model.revision", "source.class_names", "output.path", "notify.webhook", "notify.command")
LIBRARIES = (
    "torch",
    "ray",
    "datasets",
    "huggingface_hub",
    "pyarrow",
    "pillow",
    "numpy",
    "simplejpeg",
    "openvino",
    "onnxruntime",
)


@dataclass(frozen=True)
class Job:
    """values: what is hashed, flat, by the configuration key that sets it (or the fact's own name).

    places: where the images are (`job_places`), which may grow and shrink within the folder that is hashed.
    config: the configuration as it is stored. The values are never stored or shown as they are: see `stored`.
    """

    values: dict[str, Any]
    places: list[str]
    config: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        return _hash(self.values)

    @property
    def stored(self) -> dict[str, Any]:
        """What `job.json` says of this job, without secrets."""
        addresses = {key: stored_address(value) for key, value in self.values.items() if isinstance(value, str)}
        return {
            "fingerprint": self.fingerprint,
            "config": self.config,
            "values": self.values | addresses,
            "places": [stored_address(place) for place in self.places],
        }


def make_job(
    config: JobConfig,
    digest: str,
    processor: dict[str, Any],
    dtype: str,
    spec: RowSpec,
    targets: list[Any] | None = None,
    backend: str | None = None,
) -> Job:
    """Everything that changes what a row says, in plain JSON values.

    targets: what a target of the source means (`TargetMap.meaning`): class names may be edited, in their file or in the dataset.
    backend: what runs the model, where its numbers are its own: below float32.
    """
    values: dict[str, Any] = {"schema_version": SCHEMA_VERSION} | _source_values(config.source)
    values |= {"weights digest": digest, "model.heads": config.model.heads, "model.dtype": dtype}
    values |= {"model.backend": backend, "class names": _hash(spec.class_names), "target classes": targets and _hash(targets)}
    values |= {f"processor.{key}": value for key, value in processor.items()}
    values |= {"preprocess.mode": config.preprocess.mode, "output.format": config.output.format}
    values |= {f"predict.{key}": value for key, value in config.predict.model_dump().items()}
    return Job(json.loads(json.dumps(values, default=list)), places_of(config.source), stored_config(config))


def _source_values(source: SourceConfig) -> dict[str, Any]:
    values = {f"source.{key}": getattr(source, key) for key in SOURCE_KEYS}
    values["source.path"] = places_of(source)[0] if source.type == "huggingface" else base_of(paths_of(source))
    values["source.root"] = source.root and normal(source.root)
    return values


def same_source(there: dict[str, Any], config: JobConfig) -> bool:
    """Whether the job of `there` (its job.json) reads what `config` reads, and writes it in the same format: as far as can be
    told without a checkpoint."""
    now = _source_values(config.source) | {"output.format": config.output.format}
    now = {key: stored_address(value) if isinstance(value, str) else value for key, value in now.items()}
    return json.loads(json.dumps(now, default=list)).items() <= there.get("values", {}).items()


def make_rescored_job(
    there: dict[str, Any], config: JobConfig, digest: str, spec: RowSpec, temperature: float
) -> Job:
    """What other heads say of the embeddings that the job of `there` (its job.json) wrote: a job unlike any that reads images.

    config: of the new table. digest: of all the weights of the checkpoint whose heads they are.
    """
    values = there["values"] | {"weights digest": digest, "class names": _hash(spec.class_names)}
    values |= {"model.heads": config.model.heads, "output.format": config.output.format}
    values |= {"rescored from": there["fingerprint"], "temperature": temperature}
    values |= {f"predict.{key}": value for key, value in config.predict.model_dump().items()}
    return Job(values, there.get("places", []), stored_config(config))


def write_rescored_job(
    job: Job, output: Output, before: dict[str, Any] | None, checkpoint: Any, there: dict[str, Any], origin: dict[str, Any]
) -> None:
    """`job.json` of such a table: what is said of the images stays, `origin` says where the embeddings are."""
    now = {
        **there,
        **job.stored,
        **_made_by(checkpoint, before),
        "rescored": origin,
        "versions": versions(),
    }
    if before != now:
        output.write_json("job.json", now)


def _made_by(checkpoint: Any, before: dict[str, Any] | None) -> dict[str, Any]:
    """What `job.json` says of a checkpoint, and since when; before: what it said."""
    return {
        "created": (before or {}).get("created") or datetime.now(UTC).isoformat(timespec="seconds"),
        "digest": checkpoint.digest,
        "backbone": checkpoint.backbone,
        "form": checkpoint.form,
        "model_revision": checkpoint.revision,
        "class_names": checkpoint.class_names,
    }


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def stored_config(config: JobConfig) -> dict[str, Any]:
    """The configuration as `job.json` has it. What is opened again is named from the root on, and masked only where it holds
    a secret; whom `notify` tells, and how, is masked whole."""
    stored = redact(config.model_dump(mode="json"))
    source = config.source
    stored["source"]["path"] = whole(source.path, source.type)
    stored["source"]["root"] = source.root and whole(source.root)
    for section, key in (("source", "class_names"), ("model", "checkpoint"), ("output", "path")):
        value = getattr(getattr(config, section), key)
        local = key == "checkpoint" and os.path.exists(os.path.expanduser(value))  # else a hub id
        stored[section][key] = whole(value) if local else value and stored_address(value)
    return stored


def write_job(
    job: Job, output: Output, before: dict[str, Any] | None, checkpoint: Any, dtype: str, source: Any, kept: pa.Schema
) -> None:
    """`job.json`: what this job is, by its checkpoint and source. Written before the first chunk: none is ever without it.

    before: what it was, see `check_same_job`. kept: see `RowSpec`.
    """
    now = {
        **job.stored,
        **_made_by(checkpoint, before),
        "dataset_revision": source.revision,
        "dtype": dtype,
        "kept_features": kept_features(kept),
        KEPT_TYPES: base64.b64encode(kept.remove_metadata().serialize()).decode(),
        "processor": checkpoint.processor,
        "schema_version": job.values["schema_version"],
        "source_columns": {field.name: str(field.type) for field in source.schema()},
        "versions": versions(),
    }
    if before != now:
        output.write_json("job.json", now)


def check_same_job(job: Job, output: Output) -> dict[str, Any] | None:
    """What `job.json` in the output says, or None in a fresh one. Raises OutputError when another job wrote it."""
    there = output.read_json("job.json")
    if there is None:
        infos = (info for folder in (DATA, STAGING) for info in output.place.join(folder).list())
        if any(info.base_name.endswith(tuple(ENDINGS.values())) for info in infos):
            raise OutputError(
                f"output.path: {output} holds tables, but no job.json; use another folder (--overwrite deletes our own files)"
            )
        return None
    check_version(there, str(output))
    apart = not meet(there.get("places", []), job.stored["places"])
    if there.get("fingerprint") == job.fingerprint and not apart:
        return there
    raise OutputError(
        f"output.path: {output} belongs to another job ({'; '.join(_differences(there, job.stored, apart))}); "
        "use another output.path, or, to start afresh, --overwrite, which deletes its results"
    )


def _differences(there: dict[str, Any], now: dict[str, Any], apart: bool) -> list[str]:
    """What makes two jobs others, and last what differs, too, but would not."""
    before, values = there.get("values", {}), now["values"]
    differing = [
        f"{key}: {_short(before.get(key))} there, {_short(values.get(key))} now"
        for key in sorted({*before, *values})
        if before.get(key) != values.get(key)
    ]
    if apart and before.get("source.path") == values["source.path"]:
        differing.append(
            f"source.path: {_short(there.get('places'))} there, {_short(now['places'])} now, with nothing in common"
        )
    one, other = _flat(there.get("config", {})), _flat(now["config"])
    harmless = [
        key for key in sorted({*one} & {*other}) if one[key] != other[key] and key not in values and key not in APART
    ]
    differing = differing or ["it differs in what job.json does not hold"]
    return differing + ([f"changes no finished row: {', '.join(harmless)}"] if harmless else [])


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{name}.{key}": value
        for name, section in config.items()
        if isinstance(section, dict)
        for key, value in section.items()
    }


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:40]}...{text[-77:]}"  # what differs in a path is mostly its end


def check_top_k(config: JobConfig, classes: int) -> None:
    if config.predict.top_k > classes:
        raise ConfigError(f"predict.top_k: {config.predict.top_k} is more than the checkpoint's {classes} classes")


def versions() -> dict[str, str]:
    """Versions of what computed the results, for the record."""
    installed = {"python": platform.python_version()}
    for name in ("levit-batch", *LIBRARIES):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
