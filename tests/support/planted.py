"""The demo's digits, labelled, with planted copies of some of them and planted wrong targets."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from levit_batch.errors import RowError
from levit_batch.pixels.decode import decode
from levit_batch.table.output import Output
from tests.support import ROOT
from tests.support.labelled import labelled

COPIES, WRONG = "copies.parquet", 30
KINDS = ("re-encoded", "resized", "cropped", "mirrored")
EACH = 20  # copies of a kind


@dataclass(frozen=True)
class Digits:
    """copies: of each row of the shard COPIES its kind, and of which (shard, row) it is one; wrong: rows with a wrong target."""

    output: Output
    path: str
    copies: list[tuple[str, tuple[str, int]]]
    wrong: set[tuple[str, int]]


def plant(folder: Path) -> Digits:
    """Write the source and label it: a few seconds."""
    random = np.random.default_rng(3)
    (folder / "source").mkdir()
    shards = {path.name: pq.read_table(path) for path in sorted((ROOT / "configs/demo/label").glob("*.parquet"))}
    good = [(name, i) for name, table in shards.items() for i, cell in enumerate(table["image"].to_pylist()) if _opens(cell)]
    chosen = [good[i] for i in random.permutation(len(good))]
    wrong, originals = set(chosen[:WRONG]), chosen[WRONG : WRONG + EACH * len(KINDS)]
    copies = [(KINDS[i % len(KINDS)], original) for i, original in enumerate(originals)]
    rows = [_copied(kind, shards[shard].slice(row, 1).to_pylist()[0]) for kind, (shard, row) in copies]
    for name, table in shards.items():
        labels = table["label"].to_pylist()
        for shard, row in sorted(wrong):
            if shard == name:
                labels[row] = (labels[row] + int(random.integers(1, 10))) % 10
        place = table.schema.get_field_index("label")
        table = table.set_column(place, table.schema.field(place), pa.array(labels, table.schema.field(place).type))
        pq.write_table(table, folder / "source" / name)
    pq.write_table(pa.Table.from_pylist(rows, schema=next(iter(shards.values())).schema), folder / "source" / COPIES)
    source = {"path": f"{folder}/source/*.parquet", "keep_columns": ["image.path", "index"]}
    output = labelled(folder, source=source, predict={"top_k": 10, "per_head": True, "hash": True})
    return Digits(output, f"{folder}/out", copies, wrong)


def _opens(cell: dict | None) -> bool:
    try:
        decode((cell or {}).get("bytes") or b"", max_pixels=10_000)
    except RowError:
        return False
    return True


def _copied(kind: str, row: dict) -> dict:
    """The row with its image encoded again: as JPEG, half as large again, without a tenth of each edge, or mirrored."""
    image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    if kind == "resized":
        image = image.resize((image.width * 3 // 2, image.height * 3 // 2), Image.Resampling.BICUBIC)
    if kind == "cropped":
        image = ImageOps.crop(image, image.width // 10)
    if kind == "mirrored":
        image = ImageOps.mirror(image)
    buffer = io.BytesIO()
    image.save(buffer, *(["JPEG"] if kind == "re-encoded" else ["PNG"]), quality=85)
    return row | {"image": row["image"] | {"bytes": buffer.getvalue()}}
