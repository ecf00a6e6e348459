"""An output with its images as a folder that FiftyOne imports (fiftyone.types.FiftyOneImageClassificationDataset)."""

import io
import json
import os
from collections.abc import Iterator

import pyarrow as pa
from PIL import Image

from levit_batch.job.chunks import Chunk, Shard
from levit_batch.job.row import IMAGE_BYTES
from levit_batch.results.export.text import new_folder
from levit_batch.sources.source import Source
from levit_batch.table.output import Output, folder_of
from levit_batch.table.read import ChunkFile, require_files, scan_files

COLUMNS = ("shard", "row", "target", "label", "label_name", "score", "error")


def export_fiftyone(output: Output, out: str, source: Source, names: list[str]) -> tuple[int, int]:
    """Write data/<image files> and labels.json; returns rows written, and rows left out.

    Each image has its label with the score as its confidence, and shard, row and target as attributes. Images are copied
    from the source as they are. Left out: error rows, and rows of shards that changed or went away since.
    """
    folder = os.path.join(new_folder(out), "data")
    os.mkdir(folder)
    shards = {folder_of(shard.name): shard for shard in source.shards()}
    written = left_out = 0
    with open(os.path.join(out, "labels.json"), "w", encoding="utf-8") as labels:
        labels.write(f'{{"classes": {json.dumps(names, ensure_ascii=False)}, "labels": {{')
        for file, table in scan_files(require_files(output), COLUMNS):
            for key, row, data in _images(source, shards.get(file.folder), file, table):
                with open(os.path.join(folder, key + ending(data)), "wb") as image:
                    image.write(data)
                entry = json.dumps({key: _label(row, names)}, ensure_ascii=False)
                labels.write((",\n" if written else "\n") + entry[1:-1])
                written += 1
            left_out += table.num_rows
        labels.write("\n}}\n")
    return written, left_out - written


def _images(source: Source, shard: Shard | None, file: ChunkFile, table: pa.Table) -> Iterator[tuple[str, dict, bytes]]:
    """Key, row and encoded image of every good row of one chunk file."""
    if shard is None or shard.version != file.written.version:
        return
    place, rows = 0, table.to_pylist()
    chunk = Chunk(shard.name, shard.url, shard.version, file.written.first, file.written.stop)
    for part in source.read(chunk):
        for data in part[IMAGE_BYTES].to_pylist():
            row = rows[place]
            if row["error"] is None and data:
                yield f"{file.folder}-{row['row']:09d}", row, data
            place += 1


def _label(row: dict, names: list[str]) -> dict:
    attributes = {"shard": row["shard"], "row": row["row"]}
    target = row.get("target")
    if isinstance(target, int) and 0 <= target < len(names):
        attributes["target"] = names[target]
    return {"label": row["label_name"], "confidence": round(row["score"], 6), "attributes": attributes}


def ending(data: bytes) -> str:
    """The file ending of an encoded image, by its header."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return {"JPEG": ".jpg", "TIFF": ".tif"}.get(image.format, f".{image.format.lower()}")
    except OSError:
        return ".img"
