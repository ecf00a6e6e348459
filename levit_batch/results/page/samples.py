"""A few rows worth looking at, found by scanning narrow columns, and small pictures of them read again from the source."""

import io
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from levit_batch.errors import LevitBatchError
from levit_batch.job.chunks import Chunk, Shard
from levit_batch.job.row import IMAGE_BYTES
from levit_batch.pixels.decode import decode
from levit_batch.sources.source import Source
from levit_batch.table.output import Output
from levit_batch.table.read import ChunkFile, chunk_files, job_of, scan_files

SUREST, LEAST, MISTAKES, ERRORS = "surest", "least sure", "surest mistakes", "errors"
COLUMNS = ("shard", "row", "label", "label_name", "score", "target", "error")
ERROR_EXAMPLES = 3  # of each kind
EDGE = 160  # pixels of a thumbnail's longest edge

Sample = dict[str, Any]


def pick_samples(output: Output, n: int = 12) -> list[Sample]:
    """The `n` surest and least sure rows, with a target the `n` surest mistakes, and some error rows of each kind.

    Each is a dict: group, shard, row, version (of the shard), label_name, score, target_name, error. Of equal scores the
    earlier row is taken, so the same output gives the same samples.
    """
    names = job_of(output)["class_names"]
    best: dict[str, list[tuple[float, int, Sample]]] = {SUREST: [], LEAST: [], MISTAKES: []}
    errors: dict[str, list[Sample]] = {}
    seen = 0
    for file, table in scan_files(chunk_files(output), COLUMNS):
        _pick_errors(errors, file, table)
        good = table.filter(pc.is_null(table["error"]))
        score = good["score"].to_numpy()
        wrong = score[_wrong(good)]
        for group, keys, rows in (
            (SUREST, -score, np.arange(len(score))),
            (LEAST, score, np.arange(len(score))),
            (MISTAKES, -wrong, np.flatnonzero(_wrong(good))),
        ):
            _keep_best(best[group], n, keys, rows, seen, lambda i, t=good, f=file: _sample(t, i, f, names))
        seen += good.num_rows
    found = [sample | {"group": group} for group, kept in best.items() for _, _, sample in kept]
    return found + [sample for kind in sorted(errors) for sample in errors[kind]]


def _wrong(good: pa.Table) -> np.ndarray:
    """Which rows [N] have one target that is not their label."""
    if "target" not in good.schema.names or not pa.types.is_integer(good.schema.field("target").type):
        return np.zeros(good.num_rows, bool)
    return pc.fill_null(pc.not_equal(good["target"], good["label"]), False).to_numpy()


def _keep_best(
    kept: list, n: int, keys: np.ndarray, rows: np.ndarray, seen: int, sample: Callable[[int], Sample]
) -> None:
    """Keep in `kept` the `n` smallest (key, place in the output), sorted; `keys` [M] belong to `rows` [M] of a table."""
    if len(kept) == n:  # most tables hold nothing better once the list is full
        rows, keys = rows[keys < kept[-1][0]], keys[keys < kept[-1][0]]
    for i in np.argsort(keys, kind="stable")[:n]:
        kept.append((float(keys[i]), seen + int(rows[i]), sample(int(rows[i]))))
    kept.sort(key=lambda one: one[:2])
    del kept[n:]


def _sample(table: pa.Table, i: int, file: ChunkFile, names: list[str]) -> Sample:
    row = table.slice(i, 1).to_pylist()[0]
    target = row.get("target")
    truths = target if isinstance(target, list) else [] if target is None else [target]
    row["target_name"] = ", ".join(names[t] if 0 <= t < len(names) else str(t) for t in truths) or None
    return row | {"version": file.written.version}


def _pick_errors(errors: dict[str, list[Sample]], file: ChunkFile, table: pa.Table) -> None:
    bad = table.filter(pc.is_valid(table["error"]))
    for i, error in enumerate(bad["error"].to_pylist()):
        of_kind = errors.setdefault(error.split(":", 1)[0], [])
        if len(of_kind) < ERROR_EXAMPLES:
            of_kind.append(_sample(bad, i, file, []) | {"group": ERRORS})


def thumbnails(source: Source, samples: Iterable[Sample], max_pixels: int, seconds: float = 60) -> list[Sample]:
    """`samples` with `image` (JPEG bytes, or None) and, where there is no image, `note` (why).

    Reads single rows again from the source, for `seconds` at most; error rows get neither.
    """
    samples, until = list(samples), time.monotonic() + seconds
    wanted = {sample["shard"] for sample in samples if sample["error"] is None}
    try:
        shards = _shards(source, wanted)
    except (LevitBatchError, OSError) as e:
        return [sample | {"image": None, "note": f"the source cannot be read any more: {e}"} for sample in samples]
    # In the order of the source: some can only be read forwards.
    order = sorted(range(len(samples)), key=lambda i: (samples[i]["shard"], samples[i]["row"]))
    found = {i: _with_image(source, shards.get(samples[i]["shard"]), samples[i], max_pixels, until) for i in order}
    return [found[i] for i in range(len(samples))]


def _shards(source: Source, wanted: set[str]) -> dict[str, Shard]:
    found: dict[str, Shard] = {}
    for shard in source.shards() if wanted else ():
        if shard.name in wanted:
            found[shard.name] = shard
        if len(found) == len(wanted):
            break
    return found


def _with_image(source: Source, shard: Shard | None, sample: Sample, max_pixels: int, until: float) -> Sample:
    if sample["error"] is not None:
        return sample | {"image": None, "note": None}
    if shard is None or shard.version != sample["version"]:
        why = "is not in the source any more" if shard is None else "has changed since"
        return sample | {"image": None, "note": f"the shard {why}"}
    if time.monotonic() > until:
        return sample | {"image": None, "note": "left out: reading the source again took too long"}
    chunk = Chunk(shard.name, shard.url, shard.version, sample["row"], sample["row"] + 1)
    try:
        data = next(iter(source.read(chunk)))[IMAGE_BYTES][0].as_py()
        return sample | {"image": thumbnail(decode(data or b"", max_pixels=max_pixels)), "note": None}
    except (LevitBatchError, OSError, StopIteration, IndexError) as e:
        return sample | {"image": None, "note": f"cannot be read any more: {str(e) or 'the row is gone'}"}


def thumbnail(pixels: np.ndarray, edge: int = EDGE) -> bytes:
    """RGB pixels uint8 [H,W,3] as a JPEG whose longest edge has at most `edge` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((edge, edge))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
