"""A finished output folder, made by the real schema, writer and output modules over real little images, without a model."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from levit_batch.job.answers import Answers
from levit_batch.job.chunks import Chunk
from levit_batch.job.config import JobConfig
from levit_batch.job.row import IMAGE_BYTES, SCHEMA_VERSION, TARGET, RowSpec, kept_features
from levit_batch.sources.source import open_source
from levit_batch.table.manifest import read_manifest
from levit_batch.table.output import Output, folder_of
from levit_batch.table.rows import output_table
from levit_batch.table.stats import add_stats, chunk_stats
from levit_batch.table.write import write_chunk

CLASSES = ("red", "green", "blue", "grey, light")
COLOURS = ((200, 30, 30), (30, 180, 60), (40, 60, 210), (190, 190, 190))
FINGERPRINT = "f" * 64


@dataclass(frozen=True)
class Made:
    """What `make_output` made: the folder, its configuration, and the table that it must hold."""

    output: Output
    config: JobConfig
    table: pa.Table

    @property
    def path(self) -> Path:
        return Path(self.output.place.path)

    def folder(self, shard: str) -> Path:
        """Where a shard's files are."""
        return self.path / "data" / folder_of(shard)

    @property
    def job(self) -> dict:
        return self.output.read_json("job.json")


def make_output(
    folder: Path,
    *,
    name: str = "out",
    shards: int = 3,
    rows: int = 40,
    chunk_rows: int = 16,
    classes: tuple[str, ...] = CLASSES,
    width: int = 8,
    top_k: int = 3,
    embeddings: str = "float16",
    logits: bool = False,
    per_head: bool = False,
    target: str | None = "int",
    format: str = "parquet",
    bad: int = 2,
    accuracy: float = 0.8,
    seed: int = 0,
    runs: int = 1,
) -> Made:
    """`shards` Parquet shards of `rows` little PNGs in `folder`/source, and the finished output of a job over them.

    target: None, "int" (with a null now and then) or "list" (ReaL-style, sometimes empty). The last `bad` rows of the first
    shard are error rows. `accuracy` is the share of rows whose label is their target.
    """
    config = _config(folder, name, chunk_rows, format, target, top_k, embeddings, logits, per_head)
    if not (folder / "source").exists():
        _write_source(folder / "source", shards, rows, bad, len(classes), target)
    source, output = open_source(config.source), Output(config.output)
    kind = {None: None, "int": pa.int64(), "list": pa.list_(pa.int64())}[target]
    spec = RowSpec(tuple(classes), width, top_k, embeddings, logits, per_head, source.kept(), kind)
    random = np.random.default_rng(seed)
    tables = []
    starts = [(shard, first) for shard in source.shards() for first in range(0, shard.rows, chunk_rows)]
    for shard, first in starts:
        chunk = Chunk(shard.name, shard.url, shard.version, first, min(first + chunk_rows, shard.rows))
        tables.append(_rows(spec, chunk, pa.concat_tables(source.read(chunk)), random, accuracy))
        _write(output, chunk, tables[-1], spec)
    _write_records(output, config, spec, tables, runs)
    return Made(output, config, pa.concat_tables(tables))


def _config(folder, name, chunk_rows, format, target, top_k, embeddings, logits, per_head) -> JobConfig:
    return JobConfig.model_validate(
        {
            "source": {
                "path": f"{folder}/source/*.parquet",
                "keep_columns": ["image.path", "note"],
                "target_column": "target" if target else None,
            },
            "model": {"checkpoint": "facebook/levit-128S"},
            "predict": {"top_k": top_k, "embeddings": embeddings, "logits": logits, "per_head": per_head},
            "output": {"path": f"{folder}/{name}", "format": format},
            "compute": {"chunk_rows": chunk_rows},
        }
    )


def _write_source(folder: Path, shards: int, rows: int, bad: int, classes: int, target: str | None) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    for s in range(shards):
        truth = random.integers(0, classes, rows)
        images = [_png(random, COLOURS[t % len(COLOURS)]) for t in truth]
        if s == 0:
            images[rows - bad :] = [None, b"not an image"] * (bad // 2) + [None] * (bad % 2)
        columns = {
            "image": pa.array([{"bytes": b, "path": f"{s}/{i:04d}.png"} for i, b in enumerate(images)]),
            "note": [f"note {i}" for i in range(rows)],
        }
        if target == "int":
            columns["target"] = pa.array([None if i == 3 else int(t) for i, t in enumerate(truth)], pa.int64())
        if target == "list":
            lists = [[] if i == 3 else [int(t), int(t + 1) % classes][: 1 + i % 2] for i, t in enumerate(truth)]
            columns["target"] = pa.array(lists, pa.list_(pa.int64()))
        pq.write_table(pa.table(columns), folder / f"part-{s:02d}.parquet", row_group_size=max(rows // 2, 1))


def _png(random: np.random.Generator, colour: tuple[int, int, int]) -> bytes:
    pixels = np.clip(np.asarray(colour) + random.integers(-25, 25, (24, 32, 3)), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _rows(spec: RowSpec, chunk: Chunk, read: pa.Table, random: np.random.Generator, accuracy: float) -> pa.Table:
    """The output rows of one chunk: predictions drawn from the seed, errors where the source has no image."""
    errors = [_error(image) for image in read[IMAGE_BYTES].to_pylist()]
    logits = random.normal(0, 1, (read.num_rows, spec.classes)).astype(np.float32)
    if spec.target is not None:
        truth = [t[0] if isinstance(t, list) and t else t for t in read[TARGET].to_pylist()]
        for i, t in enumerate(truth):
            if isinstance(t, int) and random.random() < accuracy:
                logits[i, t] = logits[i].max() + 1 + random.random()
    answers = _answers(spec, logits, random, np.array([error is None for error in errors]))
    return output_table(chunk.shard, chunk.first, read, errors, answers, spec)


def _answers(spec: RowSpec, logits: np.ndarray, random: np.random.Generator, good: np.ndarray) -> Answers:
    """What a model with these logits [N, K] says of the `good` rows."""
    scores = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    top = np.argsort(-logits, axis=1)[:, : spec.top_k]
    top_scores = np.take_along_axis(scores, top, 1)
    embedding = divergence = None
    if spec.embeddings != "none":
        centres = np.random.default_rng(7).normal(0, 1, (spec.classes, spec.embedding_width))
        vectors = centres[top[:, 0]] + random.normal(0, 0.2, (len(logits), spec.embedding_width))
        embedding = vectors.astype(spec.embeddings)[good]
    if spec.per_head:
        divergence = random.random(len(logits)).astype(np.float32)[good]
    top, top_scores, logits = top[good], top_scores[good], logits[good]
    heads = (top[:, 0], top[:, 1 % spec.top_k])
    return Answers(top[:, 0], top_scores[:, 0], top, top_scores, embedding, logits, *heads, divergence, good[good])


def _error(data: bytes | None) -> str | None:
    return "null: no image" if data is None else None if data[:4] == b"\x89PNG" else "decode: not an image"


def _write(output: Output, chunk: Chunk, table: pa.Table, spec: RowSpec) -> None:
    stats = chunk_stats(table, spec.classes)
    record = {
        "shard": chunk.shard, "first": chunk.first, "stop": chunk.stop, "rows": table.num_rows,
        "errors": stats["errors"], "stats": stats, "attempt": 1, "started": 1.0, "ended": 2.0,
    }  # fmt: skip
    write_chunk(output, chunk, table, FINGERPRINT, record)


def _write_records(output: Output, config: JobConfig, spec: RowSpec, tables: list[pa.Table], runs: int) -> None:
    output.write_json(
        "job.json",
        {
            "fingerprint": FINGERPRINT, "config": config.model_dump(), "values": {"predict.top_k": spec.top_k},
            "digest": "d" * 64, "class_names": list(spec.class_names), "kept_features": kept_features(spec.kept),
            "processor": {"size": {"shortest_edge": 224}, "do_center_crop": True, "image_mean": [0.485, 0.456, 0.406]},
            "dataset_revision": None, "model_revision": "0123456789abcdef", "dtype": "float32", "form": "huggingface",
            "schema_version": SCHEMA_VERSION, "versions": {"levit-batch": "0.1.0", "torch": "2.13.0"},
            "created": "2026-11-01T02:00:00+00:00",
            "source_columns": {"image": "struct", "note": "string", "target": "int64"},
        },
    )  # fmt: skip
    stats = add_stats(chunk_stats(table, spec.classes) for table in tables) | {"target": None}
    for night in range(runs):
        output.write_json(f"runs/202611{night + 1:02d}T020000.12Z.json", _run(night, stats, config))


def _run(night: int, stats: dict, config: JobConfig) -> dict:
    rows, bad = stats["rows"], sum(stats["errors"].values())
    return {
        "started": f"2026-11-{night + 1:02d}T02:00:00.123+00:00", "ended": f"2026-11-{night + 1:02d}T02:03:20.123+00:00",
        "state": "done with errors" if bad else "done", "rows": rows, "errors": stats["errors"],
        "error_rate": bad / rows, "chunks": 9, "images_per_second": 61.5 + 5 * night, "seconds": 200.0,
        "stages": {s: {"seconds": t, "images_per_second": rows / t}
                   for s, t in {"read": 3.1, "decode": 55.0, "predict": 120.5, "write": 2.2}.items()},
        "waiting": {"read": 3.1, "replica": 10.0}, "peak_memory": 1_234_567_890, "replicas": 2, "begun_again": 0,
        "skipped": {"chunks": 9 * night, "rows": rows * night},
        "shards": {k: {"count": 3 * (k == "new"), "names": ["part-00.parquet"] * (k == "new")}
                   for k in ("new", "changed", "vanished")},
        "stats": stats, "drift": None, "failed": [], "versions": {"levit-batch": "0.1.0"},
    }  # fmt: skip


def named_by_manifest(output: Output) -> bool:
    """Whether `files.parquet` names the chunk files that are there, and no other."""
    named = read_manifest(output).files["path"].to_pylist()
    there = [f"data/{folder}/{file.name}" for folder, files in output.written().items() for file in files]
    return named == sorted(there)
