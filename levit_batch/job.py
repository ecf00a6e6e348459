"""What a job is, once its checkpoint and source are known: everything that changes results, and the hash of it."""

import hashlib
import importlib.metadata
import json
import platform
from dataclasses import dataclass
from typing import Any

from levit_batch.config import JobConfig
from levit_batch.errors import ConfigError, OutputError
from levit_batch.output import Output
from levit_batch.redact import redact
from levit_batch.schema import SCHEMA_VERSION, RowSpec

SOURCE_KEYS = (
    "type",
    "path",
    "name",
    "split",
    "image_column",
    "root",
    "target_column",
    "keep_columns",
    "max_image_pixels",
)
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
    """values: what is hashed, flat, by the configuration key that sets it (or the fact's own name)."""

    values: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(json.dumps(self.values, sort_keys=True).encode()).hexdigest()[:16]


def make_job(config: JobConfig, digest: str, processor: dict[str, Any], dtype: str, spec: RowSpec) -> Job:
    """Everything that changes what is written, in plain JSON values."""
    source = config.source.model_dump(mode="json")
    names = hashlib.sha256("\n".join(spec.class_names).encode()).hexdigest()[:16]
    values = {"schema_version": SCHEMA_VERSION} | {f"source.{key}": source[key] for key in SOURCE_KEYS}
    values |= {"weights digest": digest, "class names": names, "model.heads": config.model.heads, "model.dtype": dtype}
    values |= {f"processor.{key}": value for key, value in processor.items()}
    values |= {"preprocess.mode": config.preprocess.mode, "output.format": config.output.format}
    values |= {f"predict.{key}": value for key, value in config.predict.model_dump().items()}
    values["compute.chunk_rows"] = config.compute.chunk_rows
    return Job(redact(json.loads(json.dumps(values, default=list))))


def check_same_job(job: Job, output: Output) -> dict[str, Any] | None:
    """What `job.json` in the output says, or None in a fresh one. Raises OutputError when another job wrote it."""
    said = output.read_json("job.json")
    if said is None:
        if any(output.written().values()):
            raise OutputError(
                f"output.path: {output} holds chunk files but no job.json; use another folder or --overwrite"
            )
        return None
    if said.get("fingerprint") == job.fingerprint:
        return said
    before = said.get("values", {})
    differing = [
        f"{key}: {_short(before.get(key))} there, {_short(job.values.get(key))} now"
        for key in sorted({*before, *job.values})
        if before.get(key) != job.values.get(key)
    ]
    raise OutputError(
        f"output.path: {output} belongs to another job ({'; '.join(differing) or 'job.json was changed by hand'}); "
        "use another output.path, or --overwrite to delete its results and start afresh"
    )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check_top_k(config: JobConfig, classes: int) -> None:
    if config.predict.top_k > classes:
        raise ConfigError(f"predict.top_k: {config.predict.top_k} is more than the checkpoint's {classes} classes")


def versions() -> dict[str, str]:
    """Versions of what computed the results, for the record."""
    found = {"python": platform.python_version()}
    for name in ("levit-batch", *LIBRARIES):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
