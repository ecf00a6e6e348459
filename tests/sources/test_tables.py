"""Memory while reading: a few images of any source, however large they are and however many."""

import bz2
import gzip
import io
import lzma
import tarfile
import threading
import tracemalloc
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.job.chunks import plan_chunks
from levit_batch.job.row import IMAGE_BYTES, READ_ERROR
from levit_batch.sources import tables
from levit_batch.sources import webdataset_tar as tar_samples
from levit_batch.sources.tables import found_bytes, read_in_order
from tests.support.images import CHINA, encode
from tests.support.shards import add_member, open_at, pictures, read_all

SIZE, COUNT = 2_000_000, 40  # bytes of an image, images
IMAGE = encode(CHINA.crop((0, 0, 20, 20)), "BMP")


def large() -> bytes:
    return IMAGE + bytes(SIZE - len(IMAGE))


def write_folder(folder):
    folder.mkdir()
    for i in range(COUNT):
        with open(folder / f"{i:03d}.bmp", "wb") as file:
            file.write(IMAGE)
            file.truncate(SIZE)
    return folder


def folder(tmp_path):
    return open_at(write_folder(tmp_path / "in"), type="imagefolder")


def paths(tmp_path):
    write_folder(tmp_path / "root")
    pq.write_table(pa.table({"image": [f"{i:03d}.bmp" for i in range(COUNT)]}), tmp_path / "a.parquet")
    return open_at(tmp_path / "a.parquet", root=str(tmp_path / "root"))


def arrow(tmp_path):
    rows = pa.table({"image": [large()] * COUNT})
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), rows.schema) as writer:
        writer.write_table(rows)
    return open_at(tmp_path, type="arrow")


def tar(tmp_path):
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", compresslevel=1) as file:
        for i in range(COUNT):
            add_member(file, f"{i:03d}.bmp", large())
    return open_at(tmp_path, type="webdataset")


@pytest.mark.parametrize("make", [folder, paths, arrow, tar])
def test_large_images_are_read_a_few_at_a_time(tmp_path, monkeypatch, make):
    monkeypatch.setattr(tables, "TABLE_BYTES", 2 * SIZE)
    source = make(tmp_path)
    (chunk,) = plan_chunks(source.shards(), COUNT)
    before, most, rows = pa.total_allocated_bytes(), 0, []
    tracemalloc.start()
    for table in source.read(chunk):
        rows.append(table.num_rows)
        most = max(most, pa.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == [2] * (COUNT // 2)
    assert most + peak < 12 * SIZE


def test_many_small_images_share_a_table(tmp_path):
    for i in range(100):
        (tmp_path / f"{i:03d}.bmp").write_bytes(IMAGE)
    source = open_at(tmp_path, type="imagefolder")
    (chunk,) = plan_chunks(source.shards(), 100)
    assert [table.num_rows for table in source.read(chunk)] == [64, 36]


@pytest.mark.parametrize("form", ["file", "cell", "path", "sample"])
def test_what_is_too_large_is_one_error_row(tmp_path, form):
    images = [p.data for p in pictures()[:4]]
    most, huge = max(map(len, images)), 200 << 30
    if form == "cell":
        pq.write_table(pa.table({"image": [*images, bytes(most + 1)]}), tmp_path / "a.parquet")
        source = open_at(tmp_path, max_image_bytes=most)
    elif form == "sample":
        with tarfile.open(tmp_path / "a.tar", "w") as file:
            for i, data in enumerate([*images, bytes(most + 1)]):
                add_member(file, f"{i}.png", data)
        source = open_at(tmp_path, type="webdataset", max_image_bytes=most)
    else:
        root = tmp_path / "root"
        root.mkdir()
        for i, data in enumerate([*images, b""]):
            (root / f"{i}.png").write_bytes(data)
        with open(root / "4.png", "wb") as file:
            file.truncate(huge)  # sparse; there is no memory for it
        pq.write_table(pa.table({"image": [f"{i}.png" for i in range(5)]}), tmp_path / "a.parquet")
        columns = open_at(tmp_path / "a.parquet", root=str(root), max_image_bytes=most)
        source = columns if form == "path" else open_at(root, type="imagefolder", max_image_bytes=most)
    rows = read_all(source)
    assert rows[IMAGE_BYTES].to_pylist() == [*images, None]
    *good, error = rows[READ_ERROR].to_pylist()
    assert good == [None] * 4 and error.startswith("unreadable: ") and "source.max_image_bytes" in error


def member(name, size, kind=tarfile.REGTYPE):
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info


@pytest.mark.parametrize("opened", [partial(gzip.open, compresslevel=1), bz2.open, partial(lzma.open, preset=0)])
def test_a_tar_of_zeros_costs_no_memory(tmp_path, monkeypatch, opened):
    monkeypatch.setattr(tar_samples, "MOST_UNPACKED", 1 << 20)
    good = pictures()[0].data
    zeros = bytes(16 << 20)
    members = [
        (member("0.png", len(good)), good),
        (member("1.png", len(zeros)), zeros),
        (member("2.png", len(good)), good),
        (member("2.json", len(zeros)), zeros),
        (member("x", len(zeros), tarfile.XHDTYPE), zeros),
        (member("3.png", len(good)), good),
    ]
    with opened(tmp_path / "a.tar.gz", "wb") as stream, tarfile.open(fileobj=stream, mode="w") as file:
        for info, data in members:
            file.addfile(info, io.BytesIO(data))
    source = open_at(tmp_path, type="webdataset", max_image_bytes=1 << 20, keep_columns=["json"])
    tracemalloc.start()
    rows = read_all(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    errors = rows[READ_ERROR].to_pylist()
    assert rows[IMAGE_BYTES].to_pylist()[:3] == [good, None, good]
    assert "max_image_bytes" in errors[1] and errors[3].startswith("unreadable: the tar is damaged from here on: a header")
    assert len(errors) == 4 and rows["json"].null_count == 4
    assert peak < 8 << 20


def test_reading_side_by_side_keeps_order_and_takes_fewer_where_images_are_large(monkeypatch):
    monkeypatch.setattr(tables, "TABLE_BYTES", 100)
    lock, now, most = threading.Lock(), [0], {50: 0, 1: 0}

    def read(i):
        size = 50 if i >= 50 else 1
        with lock:
            now[0] += 1
            most[size] = max(most[size], now[0])
        threading.Event().wait(0.002)
        with lock:
            now[0] -= 1
        return bytes([i]) * size, None

    found = list(read_in_order(read, range(100), 8))
    assert [image[0] for image, _ in found] == list(range(100)) and found_bytes(found[-1]) == 50
    assert most[1] > 1
    most[50] = 0
    list(read_in_order(read, range(50, 100), 8))
    assert most[50] <= 8
    late = []
    for i, _ in enumerate(read_in_order(lambda i: late.append(i) or read(i), range(50, 100), 8)):
        assert len(late) <= i + 10
    assert sorted(late) == list(range(50, 100))
