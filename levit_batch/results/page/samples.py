"""A few rows worth looking at, found by scanning narrow columns, and small pictures of them read again from the source: for
tables whose picks nobody kept while they were labelled (`kept_samples.py`)."""

import io
import time

import numpy as np
import pyarrow as pa
from PIL import Image

from levit_batch.errors import LevitBatchError
from levit_batch.job.chunks import Chunk, Shard
from levit_batch.job.row import IMAGE_BYTES
from levit_batch.pixels.decode import decode
from levit_batch.results.best import Pick
from levit_batch.results.looks import COLUMNS, SHOWN, Looks
from levit_batch.results.naming import naming_of
from levit_batch.sources.source import Source
from levit_batch.table.output import Output
from levit_batch.table.read import ChunkFile, chunk_files, job_of, schema_of
from levit_batch.table.scan import scan_files

EDGE = 160  # pixels of a thumbnail's longest edge


def pick_samples(output: Output, n: int = SHOWN, files: list[ChunkFile] | None = None) -> list[Pick]:
    """The `n` surest and least sure rows, with a target the `n` surest mistakes, and some error rows of each kind, see `Looks`.

    Reads the narrow columns of all rows, or of those in `files`. The same rows give the same samples.
    """
    files = chunk_files(output) if files is None else files
    looks, naming = Looks(n), naming_of(job_of(output), schema_of(files[0]) if files else pa.schema([]))
    for file, table in scan_files(files, [*COLUMNS, *naming.columns]):
        looks.add(table, naming, file.written.version)
    return looks.picks()


def thumbnails(source: Source | str, picks: list[Pick], seconds: float = 60) -> list[Pick]:
    """`picks` with `image` (JPEG bytes, or None) and, where there is no image, `note` (why).

    source: where single rows are read again, for `seconds` at most; or why it cannot be. Error rows get neither.
    """
    until, wanted = time.monotonic() + seconds, {pick["shard"] for pick in picks if pick["error"] is None}
    try:
        shards = {} if isinstance(source, str) else _shards(source, wanted)
    except (LevitBatchError, OSError) as e:
        source = f"the source cannot be read any more: {e}"
    if isinstance(source, str):
        return [pick | {"image": None, "note": source} for pick in picks]
    # In the order of the source: some can only be read forwards.
    order = sorted(range(len(picks)), key=lambda i: (picks[i]["shard"], picks[i]["row"]))
    pictures = {i: _picture(source, shards.get(picks[i]["shard"]), picks[i], until) for i in order}
    return [pick | dict(zip(("image", "note"), pictures[i], strict=True)) for i, pick in enumerate(picks)]


def _shards(source: Source, wanted: set[str]) -> dict[str, Shard]:
    shards: dict[str, Shard] = {}
    for shard in source.shards() if wanted else ():
        if shard.name in wanted:
            shards[shard.name] = shard
        if len(shards) == len(wanted):
            break
    return shards


def _picture(source: Source, shard: Shard | None, pick: Pick, until: float) -> tuple[bytes | None, str | None]:
    """A JPEG of the row, or why there is none; neither for an error row."""
    if pick["error"] is not None:
        return None, None
    if shard is None or shard.version != pick["version"]:
        return None, "the shard is not in the source any more" if shard is None else "the shard has changed since"
    if time.monotonic() > until:
        return None, "left out: reading the source again took too long"
    chunk = Chunk(shard.name, shard.url, shard.version, pick["row"], pick["row"] + 1)
    try:
        data = next(iter(source.read(chunk)))[IMAGE_BYTES][0].as_py()
        return thumbnail(decode(data or b"", max_pixels=source.config.max_image_pixels)), None
    except (LevitBatchError, OSError, StopIteration, IndexError) as e:
        return None, f"cannot be read any more: {str(e) or 'the row is gone'}"


def thumbnail(pixels: np.ndarray, edge: int = EDGE) -> bytes:
    """RGB pixels uint8 [H,W,3] as a JPEG whose longest edge has at most `edge` pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((edge, edge))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
