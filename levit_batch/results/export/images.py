"""An output with its images as a folder that FiftyOne imports (fiftyone.types.FiftyOneImageClassificationDataset)."""

import io
import json
import os
import re
from collections.abc import Iterator
from itertools import chain, groupby, repeat
from typing import Any

import pyarrow as pa
from PIL import Image

from levit_batch.job.chunks import Chunk, Shard
from levit_batch.job.row import IMAGE_BYTES
from levit_batch.results.export.text import new_folder, plain
from levit_batch.results.naming import naming_of, untaken
from levit_batch.results.near.looked_up import holding
from levit_batch.sources.source import Source
from levit_batch.table.output import Output, folder_of
from levit_batch.table.read import ChunkFile, first_file, job_of, require_files, schema_of
from levit_batch.table.scan import scan_files

FIELDS = ("shard", "row", "target", "id", "label", "confidence", "logits", "tags", "attributes")  # taken, of a label
COLUMNS = ("shard", "row", "target", "label", "label_name", "score", "error")


def export_fiftyone(output: Output, out: str, source: Source, names: list[str]) -> tuple[int, int]:
    """Write data/<image files> and labels.json; returns rows written, and rows left out (see `copied_images`).

    Each image has its label with the score as its confidence, and shard, row, kept columns and target as attributes.
    """
    folder = os.path.join(new_folder(out), "data")
    written = left_out = 0
    with open(os.path.join(out, "labels.json"), "w", encoding="utf-8") as labels:
        labels.write(f'{{"classes": {json.dumps(names, ensure_ascii=False)}, "labels": {{')
        for image, row in copied_images(output, folder, source):
            left_out += image is None
            if image is not None:
                entry = json.dumps({os.path.splitext(image)[0]: _label(row, names)}, ensure_ascii=False)
                labels.write((",\n" if written else "\n") + entry[1:-1])
                written += 1
        labels.write("\n}}\n")
    return written, left_out


class Chosen:
    """Which rows are asked for, and what is known of each: (shard, row) -> other columns; or all of them."""

    def __init__(self, known: dict[tuple[str, int], dict] | None = None):
        self.known = known

    @staticmethod
    def of(table: pa.Table | None) -> "Chosen":
        if table is None:
            return Chosen()
        return Chosen({(row.pop("shard"), row.pop("row")): row for row in table.to_pylist()})

    def beside(self, row: dict) -> dict:
        return (self.known or {}).get((row["shard"], row["row"]), {})

    def files(self, output: Output) -> list[ChunkFile]:
        return require_files(output) if self.known is None else holding(output, self.known)[0]

    def among(self, rows: list[dict]) -> list[dict]:
        return rows if self.known is None else [row for row in rows if (row["shard"], row["row"]) in self.known]


def copied_images(
    output: Output, folder: str, source: Source, chosen: Chosen = Chosen()
) -> Iterator[tuple[str | None, dict[str, Any]]]:
    """Each row with the name of the file in `folder` that its image, as it is in the source, was copied to.

    None for a row that is left out: an error row, or one whose shard changed or went away since. Only `chosen` rows are read.
    A row has what was kept of it as `kept`; the copy is called after shard, row and, if it was kept, the file's own name.
    """
    os.mkdir(folder)
    shards = {folder_of(shard.name): shard for shard in source.shards()}
    naming = naming_of(job_of(output), schema_of(first_file(output)), kept=True)
    for file, table in scan_files(chosen.files(output), [*COLUMNS, *naming.columns]):
        shard = shards.get(file.folder)
        there = shard is not None and shard.version == file.written.version
        for rows in _runs(chosen.among(table.to_pylist())):
            images = chain(_encoded(source, shard, rows) if there else (), repeat(None))
            for row, data in zip(rows, images, strict=False):
                row["kept"] = {column: row.pop(column) for column in naming.kept}
                name = None
                if row["error"] is None and data:
                    name = f"{file.folder}-{row['row']:09d}{_own(row['kept'].get(naming.column))}{ending(data)}"
                    with open(os.path.join(folder, name), "wb") as image:
                        image.write(data)
                yield name, row


def _own(name: str | None) -> str:
    """What a file's own name adds to that of its copy: letters, digits, hyphens, no more than every file system takes."""
    stem = os.path.splitext(os.path.basename(name or ""))[0]
    return f"-{re.sub('[^A-Za-z0-9_]+', '-', stem)[:60]}" if stem else ""


def _runs(rows: list[dict]) -> Iterator[list[dict]]:
    """`rows` of one shard, cut where one does not follow the other."""
    for _, run in groupby(enumerate(rows), key=lambda one: one[1]["row"] - one[0]):
        yield [row for _, row in run]


def _encoded(source: Source, shard: Shard, rows: list[dict]) -> Iterator[bytes | None]:
    """The encoded images of rows that follow each other."""
    chunk = Chunk(shard.name, shard.url, shard.version, rows[0]["row"], rows[-1]["row"] + 1)
    for part in source.read(chunk):
        yield from part[IMAGE_BYTES].to_pylist()


def _label(row: dict, names: list[str]) -> dict:
    attributes = {"shard": row["shard"], "row": row["row"]}
    attributes |= {_field(name): plain(value) for name, value in row["kept"].items()}
    target = row.get("target")
    if isinstance(target, int) and 0 <= target < len(names):
        attributes["target"] = names[target]
    return {"label": row["label_name"], "confidence": round(row["score"], 6), "attributes": attributes}


def _field(column: str) -> str:
    """A kept column's name as FiftyOne takes it for a field: no dots, no underscore in front, none of a label's own."""
    name = re.sub(r"\W", "_", column).strip("_") or "kept"
    return untaken(name, FIELDS)


def ending(data: bytes) -> str:
    """The file ending of an encoded image, by its header."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return {"JPEG": ".jpg", "TIFF": ".tif"}.get(image.format, f".{image.format.lower()}")
    except OSError:
        return ".img"
