"""The same real images in every form that a source reads, and how to read them all back."""

import io
import json
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from levit_batch.job.chunks import plan_chunks
from levit_batch.job.config import SourceConfig
from levit_batch.job.row import IMAGE_BYTES, KEPT, READ_ERROR, TARGET
from levit_batch.sources.source import Source, open_source
from tests.support.images import CHINA, FLOWER, encode

CLASSES = ["china", "flower"]
FORMS = ("JPEG", "PNG", "WEBP")
FEATURES = datasets.Features(
    {
        "image": datasets.Image(decode=False),
        "label": datasets.ClassLabel(names=CLASSES),
        "caption": datasets.Value("string"),
    }
)


@dataclass(frozen=True)
class Picture:
    name: str  # zero-padded, so that every order is the same
    data: bytes
    label: int
    caption: str


@lru_cache(4)
def pictures(count: int = 60, size: int = 160, forms: tuple[str, ...] = FORMS) -> tuple[Picture, ...]:
    """Crops of two photographs, in `forms` in turns; the first half one class, the second the other."""
    found = []
    for i in range(count):
        label = int(i >= count / 2)
        x, y = (i * 37) % (640 - size), (i * 53) % (427 - size)
        form = forms[i % len(forms)]
        data = encode((CHINA, FLOWER)[label].crop((x, y, x + size, y + size)), form)
        found.append(Picture(f"{i:04d}.{form.lower()}", data, label, f"picture {i}"))
    return tuple(found)


def table(images: tuple[Picture, ...]) -> pa.Table:
    rows = [{"image": {"bytes": p.data, "path": p.name}, "label": p.label, "caption": p.caption} for p in images]
    return pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema)


def parts(images: tuple[Picture, ...], count: int) -> list[tuple[Picture, ...]]:
    edges = [len(images) * i // count for i in range(count + 1)]
    return [images[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def write_parquet(folder: Path, images: tuple[Picture, ...], shards: int = 3, group: int = 7) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, part in enumerate(parts(images, shards)):
        pq.write_table(table(part), folder / f"train-{i:05d}-of-{shards:05d}.parquet", row_group_size=group)
    return folder


def write_folder(folder: Path, images: tuple[Picture, ...]) -> Path:
    """One folder a class."""
    for p in images:
        path = folder / CLASSES[p.label] / p.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(p.data)
    return folder


def write_metadata_folder(folder: Path, images: tuple[Picture, ...], kind: str = "jsonl") -> Path:
    """Images beside a metadata file."""
    folder.mkdir(parents=True, exist_ok=True)
    for p in images:
        (folder / p.name).write_bytes(p.data)
    rows = [{"file_name": p.name, "label": p.label, "caption": p.caption} for p in images]
    said = pa.Table.from_pylist(rows)
    if kind == "jsonl":
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "csv":
        import pyarrow.csv

        pyarrow.csv.write_csv(said, folder / "metadata.csv")
    else:
        pq.write_table(said, folder / "metadata.parquet")
    return folder


def tar_bytes(images: tuple[Picture, ...]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for p in images:
            key, form = p.name.split(".")
            facts = json.dumps({"caption": p.caption, "size": {"w": 160}})
            for ending, data in ((form, p.data), ("cls", str(p.label)), ("json", facts), ("txt", p.caption)):
                add_member(tar, f"{key}.{ending}", data)
    return stream.getvalue()


def add_member(tar: tarfile.TarFile, name: str, data: bytes | str) -> None:
    data = data.encode() if isinstance(data, str) else data
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def write_tars(folder: Path, images: tuple[Picture, ...], shards: int = 3) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, part in enumerate(parts(images, shards)):
        (folder / f"train-{i:05d}.tar").write_bytes(tar_bytes(part))
    return folder


def dataset(images: tuple[Picture, ...] | None = None) -> datasets.Dataset:
    return datasets.Dataset(table(images or pictures()), fingerprint="x").cast(FEATURES)


def write_saved(folder: Path, images: tuple[Picture, ...]) -> Path:
    """As `save_to_disk` leaves it, in three files."""
    dataset(images).save_to_disk(folder, num_shards=3)
    return folder


def write_splits(folder: Path, images: tuple[Picture, ...]) -> Path:
    datasets.DatasetDict({"train": dataset(images), "test": dataset(images)}).save_to_disk(folder)
    return folder


def write_ipc(path: Path, rows: pa.Table, form: str = "file", **options) -> None:
    """form: file | stream. Record batches of nine rows."""
    new = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with new(str(path), rows.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(rows, max_chunksize=9)


def write_arrow(folder: Path, images: tuple[Picture, ...], form: str = "file", **options) -> Path:
    """One Arrow file."""
    folder.mkdir(parents=True, exist_ok=True)
    write_ipc(folder / "a.arrow", table(images), form, **options)
    return folder


def open_at(path: Path | str | list[str], **options) -> Source:
    path = path if isinstance(path, list) else str(path)
    return open_source(SourceConfig(path=path, **options))


def read_all(source: Source, chunk_rows: int = 11, limit: int | None = None) -> pa.Table:
    """Every row of every chunk in the plan's order; kept columns under their own names."""
    tables = []
    for chunk in plan_chunks(source.shards(), chunk_rows, limit, source.count):
        rows = pa.concat_tables(source.read(chunk))
        assert chunk.rows is None or rows.num_rows == chunk.rows
        tables.append(rows)
    return named(pa.concat_tables(tables), source)


def named(rows: pa.Table, source: Source) -> pa.Table:
    """What `source.read` gave, with its kept columns under their own names."""
    own = {KEPT.format(i): name for i, name in enumerate(source.config.keep_columns)}
    return rows.rename_columns([own.get(name, name) for name in rows.schema.names])


def good(rows: pa.Table) -> list[dict]:
    """Bytes and carried columns of rows that must all be good; without the file's name, which image folders always keep."""
    assert rows[READ_ERROR].null_count == rows.num_rows, rows[READ_ERROR].drop_null().to_pylist()[:3]
    return rows.drop_columns([name for name in rows.column_names if name in (READ_ERROR, "file_name")]).to_pylist()


def expected(images: tuple[Picture, ...], target: bool = True, caption: bool = True) -> list[dict]:
    return [
        {IMAGE_BYTES: p.data} | ({TARGET: p.label} if target else {}) | ({"caption": p.caption} if caption else {})
        for p in images
    ]
