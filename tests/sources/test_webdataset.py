import bz2
import gzip
import io
import lzma
import pickle
import tarfile

import pyarrow as pa
import pytest

from levit_batch.errors import SourceError
from levit_batch.job.row import IMAGE_BYTES, READ_ERROR, TARGET
from levit_batch.storage.find import expand_braces
from tests.support.shards import add_member, good, open_at, pictures, read_all, tar_bytes, write_tars

WEB = {"type": "webdataset"}


@pytest.fixture
def folder(tmp_path):
    return write_tars(tmp_path / "in", pictures())


def make_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            add_member(tar, name, data)
    return path


def test_every_row_once_in_order(folder):
    source = open_at(folder, target_column="cls", keep_columns=["__key__", "txt", "json.caption", "json.size"], **WEB)
    rows = good(read_all(pickle.loads(pickle.dumps(source))))
    assert [row[IMAGE_BYTES] for row in rows] == [p.data for p in pictures()]
    assert [row[TARGET] for row in rows] == [p.label for p in pictures()]
    assert [row["__key__"] for row in rows] == [p.name.split(".")[0] for p in pictures()]
    assert [row["txt"] for row in rows] == [row["json.caption"] for row in rows] == [p.caption for p in pictures()]
    assert rows[0]["json.size"] == {"w": 160}


def test_lists_braces_and_double_colons(folder):
    one = open_at(f"{folder}/train-{{00000..00002}}.tar", **WEB)
    two = open_at([f"{folder}/train-00000.tar", f"{folder}/train-{{00001,00002}}.tar"], **WEB)
    three = open_at("::".join(f"{folder}/train-0000{i}.tar" for i in range(3)), **WEB)
    for source in (one, two, three):
        assert [shard.name for shard in source.shards()] == [f"train-0000{i}.tar" for i in range(3)]
    assert expand_braces("a{9..11}{x,}") == ["a9x", "a9", "a10x", "a10", "a11x", "a11"]


def test_compressed_and_one_image_ending(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(tar_bytes(pictures())))
    rows = read_all(open_at(tmp_path, image_column="jpeg;webp", **WEB))
    assert rows[READ_ERROR].null_count == 40
    assert rows[READ_ERROR][1].as_py() == "missing: sample 0001 has no image member"


@pytest.mark.parametrize("cut", [0.5, 0.51, 0.77, 0.9])
def test_a_truncated_tar_costs_its_tail(tmp_path, cut):
    data = tar_bytes(pictures())
    (tmp_path / "a.tar").write_bytes(data[: int(len(data) * cut) // 512 * 512 + 100])
    rows = read_all(open_at(tmp_path, **WEB))
    errors = rows[READ_ERROR].to_pylist()
    whole = len(errors) - 1
    assert 20 < whole < 60
    assert rows[IMAGE_BYTES].to_pylist()[:whole] == [p.data for p in pictures()[:whole]]
    assert errors[:-1] == [None] * whole and "the tar is damaged from here on" in errors[-1]


@pytest.mark.parametrize("form, cut", [(gzip, True), (bz2, True), (bz2, False), (lzma, True), (lzma, False)])
def test_a_damaged_compressed_tar_costs_its_tail(tmp_path, form, cut):
    images = pictures(60, 160, ("PNG",))
    data = bytearray(form.compress(tar_bytes(images)))  # of changed bytes gzip tells at its end only
    middle = len(data) * 3 // 4
    if cut:
        del data[middle:]
    else:
        data[middle : middle + 200] = b"\x99" * 200
    (tmp_path / "a.tar").write_bytes(data)
    rows = read_all(open_at(tmp_path, **WEB))
    errors = rows[READ_ERROR].to_pylist()
    assert errors[:-1] == [None] * (len(errors) - 1) and "the tar is damaged from here on" in errors[-1]
    assert rows[IMAGE_BYTES].to_pylist()[: len(errors) - 2] == [p.data for p in images[: len(errors) - 2]]
    assert len(errors) > 5


def test_a_damaged_header_is_not_the_end(folder):
    path = folder / "train-00001.tar"
    with tarfile.open(path) as tar:
        header = tar.getmembers()[41].offset
    data = bytearray(path.read_bytes())
    data[header : header + 512] = b"\x99" * 512
    path.write_bytes(data)
    errors = read_all(open_at(folder, **WEB))[READ_ERROR].to_pylist()
    assert len(errors) == 20 + 12 + 20 and sum(error is not None for error in errors) == 1
    assert errors[31].startswith("unreadable: the tar is damaged")


def test_a_tar_without_its_end_mark_was_cut(tmp_path):
    data = tar_bytes(pictures()[:3])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        end = tar.getmembers()[-1]
    (tmp_path / "a.tar").write_bytes(data[: end.offset_data + 512])
    errors = read_all(open_at(tmp_path, **WEB))[READ_ERROR].to_pylist()
    assert errors[:3] == [None] * 3 and "end mark" in errors[3]


def test_names_that_point_elsewhere_do_no_harm(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    image = pictures()[0].data
    make_tar(folder / "a.tar", [("/etc/0001.jpg", image), ("../../0002.jpg", image), ("./d/0003.seg.png", image)])
    with tarfile.open(folder / "b.tar", "w") as tar:
        link = tarfile.TarInfo("0004.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        add_member(tar, "0005.jpg", image)
    rows = read_all(open_at(folder, keep_columns=["__key__"], **WEB))
    assert rows["__key__"].to_pylist() == ["/etc/0001", "../../0002", "d/0003", "0005"]
    assert rows[READ_ERROR].to_pylist()[2] == "missing: sample d/0003 has no image member"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar", "b.tar", "in"]


def test_names_that_are_not_utf8(tmp_path):
    image = pictures()[0].data
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name in (b"a\xfe.jpg", b"a\xff.jpg", b"b.jpg", b"c\nd/e.jpg"):
            add_member(tar, name.decode("utf-8", "surrogateescape"), image)
    rows = read_all(open_at(tmp_path, keep_columns=["__key__", "image.path"], **WEB))
    assert rows["__key__"].to_pylist() == [r"a\xfe", r"a\xff", "b", "c\nd/e"]
    assert rows[IMAGE_BYTES].to_pylist() == [image] * 4


def test_companions_that_are_missing_or_malformed_are_null(tmp_path):
    image = pictures()[0].data
    members = []
    for i in range(20):
        members += [(f"{i:03d}.jpg", image), (f"{i:03d}.cls", str(i)), (f"{i:03d}.json", f'{{"n": {i}}}')]
    members += [("020.jpg", image), ("020.cls", "five"), ("020.json", '{"n": "x"}')]
    members += [("021.jpg", image), ("021.json", "{")]
    members += [("022.jpg", image), ("022.json", '{"n": 3.5}'), ("023.jpg", image), ("023.json", '{"n": 4.0}')]
    make_tar(tmp_path / "a.tar", members)
    rows = read_all(open_at(tmp_path, target_column="cls", keep_columns=["json.n"], **WEB))
    assert rows[TARGET].to_pylist() == [*range(20), None, None, None, None]
    assert rows["json.n"].to_pylist() == [*range(20), None, None, None, 4], "no fraction is cut off"


def test_columns_that_are_not_there(folder):
    with pytest.raises(SourceError, match="no column json.captain"):
        list(open_at(folder, keep_columns=["json.captain"], **WEB).shards())
    with pytest.raises(SourceError, match="source.image_column"):
        list(open_at(folder, image_column="tiff", **WEB).shards())


def of_sizes(folder, before, *sizes):
    """Samples whose json says these sizes, over a table that has them in the type `before`."""
    folder.mkdir(exist_ok=True)
    members = [(f"{i}.{ending}", data) for i, size in enumerate(sizes) for ending, data in
               (("png", pictures()[0].data), ("json", f'{{"size": {size}}}'))]  # fmt: skip
    make_tar(folder / "a.tar", members)
    source = open_at(folder, keep_columns=["json.size"], **WEB)
    source.before = pa.schema([("json.size", before)])
    return source


@pytest.mark.parametrize("before", [pa.float64(), pa.int32()])
def test_types_that_were_guessed_become_those_of_the_table_that_is_there(tmp_path, before):
    source = of_sizes(tmp_path / "in", before, 3, 4)
    rows = read_all(source)["json.size"]
    assert rows.type == source.kept().field(0).type == before and rows.to_pylist() == [3, 4]


@pytest.mark.parametrize("size, before", [("3.5", pa.int64()), ("300", pa.int8()), ('"3"', pa.int64()), ("3", pa.string())])
def test_guessed_types_whose_values_the_table_would_lose_are_refused(tmp_path, size, before):
    with pytest.raises(SourceError, match=f"a.tar: column json.size is .* here and {before} in the table that is there"):
        list(of_sizes(tmp_path / "in", before, size).shards())
