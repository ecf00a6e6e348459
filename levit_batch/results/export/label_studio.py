"""Rows with their images as tasks of Label Studio, our labels in them as its predictions; and what people said, read back."""

import json
import os
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from levit_batch.errors import SourceError
from levit_batch.results.export.images import Chosen, copied_images
from levit_batch.results.export.text import new_folder, plain
from levit_batch.results.naming import with_kept
from levit_batch.sources.columns.targets import told_apart
from levit_batch.sources.source import Source
from levit_batch.storage.place import place
from levit_batch.table.output import Output

IMAGE, LABEL = "image", "label"  # what the labelling interface calls the image and the choice
LOCAL_FILES = "/data/local-files/?d="  # how Label Studio serves what lies below its LOCAL_FILES_DOCUMENT_ROOT


def export_label_studio(
    output: Output, out: str, source: Source, job: dict[str, Any], chosen: pa.Table | None = None
) -> tuple[int, int]:
    """Write images/<files>, tasks.json and label_config.xml; returns rows written, and rows left out (see `copied_images`).

    chosen: shard and row of those that are asked for; what else it has goes along, as do kept columns. None: all.
    """
    folder, names = new_folder(out), told_apart(job["class_names"])
    where, model = f"{os.path.basename(os.path.abspath(out))}/images", f"levit-batch {job['digest'][:12]}"
    with open(os.path.join(folder, "label_config.xml"), "w", encoding="utf-8") as config:
        config.write(labelling_interface(names))
    rows = Chosen.of(chosen)
    written = of = 0
    with open(os.path.join(folder, "tasks.json"), "w", encoding="utf-8") as tasks:
        for image, row in copied_images(output, os.path.join(folder, "images"), source, rows):
            of += 1
            if image is not None:
                data = {IMAGE: LOCAL_FILES + quote(f"{where}/{image}"), "shard": row["shard"], "row": row["row"]}
                data = rows.beside(row) | with_kept(data, row["kept"])
                task = {"data": data, "predictions": [prediction(model, names[row["label"]], row["score"])]}
                tasks.write((",\n" if written else "[\n") + json.dumps(plain(task), ensure_ascii=False))
                written += 1
        tasks.write("\n]\n" if written else "[]\n")
    return written, (of if rows.known is None else len(rows.known)) - written


def labelling_interface(names: list[str]) -> str:
    """The XML that a project takes as its labelling interface: an image and one choice of the classes."""
    image, find = f'<Image name="{IMAGE}" value="${IMAGE}"/>', f'<Filter name="filter" toName="{LABEL}" minlength="0"/>'
    choices = f'<Choices name="{LABEL}" toName="{IMAGE}" choice="single" required="true" showInline="true">'
    each = [f"    <Choice value={quoteattr(name)}/>" for name in names]
    return "\n".join(["<View>", f"  {image}", f"  {find}", f"  {choices}", *each, "  </Choices>", "</View>", ""])


def prediction(model: str, name: str, score: float) -> dict[str, Any]:
    result = {"id": LABEL, "from_name": LABEL, "to_name": IMAGE, "type": "choices", "value": {"choices": [name]}}
    return {"model_version": model, "score": round(score, 6), "result": [result]}


def read_chosen(path: str) -> pa.Table:
    """The table that `levit-batch select --out` wrote, Parquet or CSV. Raises SourceError where shard and row are missing."""
    at = place(path)
    try:
        with at.filesystem.open_input_file(at.path) as file:
            table = pyarrow.csv.read_csv(file) if path.endswith(".csv") else pq.read_table(file)
    except (pa.ArrowInvalid, OSError) as e:
        raise SourceError(f"--rows: {path}: not a readable Parquet or CSV file: {e}") from None
    if missing := [name for name in ("shard", "row") if name not in table.schema.names]:
        raise SourceError(f"--rows: {path}: has no column {missing[0]}; `levit-batch select --out` writes such a table")
    return table


def read_annotations(path: str, column: str) -> pa.Table:
    """shard, row and, as `column`, the class names that people gave, of a project exported as JSON or JSON-MIN.

    Of several annotations of a row the last counts; one that was skipped does not. Raises SourceError for another file.
    """
    try:
        tasks = json.loads(place(path).read_bytes())
        answers = sorted((answer for task in tasks for answer in _answers(task)), key=lambda answer: answer[0])
        last = {(shard, row): names for _, shard, row, names in answers if names}
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise SourceError(f"{path}: not what Label Studio exports as JSON or JSON-MIN of our tasks: {e!r}") from None
    except OSError as e:
        raise SourceError(f"{path}: cannot be read: {e}") from None
    several = any(len(names) > 1 for names in last.values())
    kind = pa.list_(pa.string()) if several else pa.string()
    truth = pa.array([names if several else names[0] for names in last.values()], kind)
    shards, rows = pa.array([shard for shard, _ in last], pa.string()), pa.array([row for _, row in last], pa.int64())
    return pa.table({"shard": shards, "row": rows, column: truth})


def _answers(task: dict[str, Any]) -> Iterator[tuple[str, str, int, list[str]]]:
    """When an annotation of a task was made, the task's shard and row, and the names that it gives: none if it was skipped.

    JSON has a list of annotations, of which each is a list of results; JSON-MIN repeats the task for each of them.
    """
    if "data" not in task:
        given = task.get(LABEL) or []
        given = given["choices"] if isinstance(given, dict) else given
        yield _when(task), task["shard"], task["row"], [given] if isinstance(given, str) else given
        return
    for said in task.get("annotations", ()):
        ours = [result for result in said["result"] if result.get("from_name") == LABEL and not said.get("was_cancelled")]
        names = [name for result in ours for name in result["value"]["choices"]]
        yield _when(said), task["data"]["shard"], task["data"]["row"], names


def _when(said: dict[str, Any]) -> str:
    return said.get("updated_at") or said.get("created_at") or ""
