import os
import pickle
import socket

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import SourceError
from levit_batch.job.chunks import Chunk, plan_chunks
from levit_batch.job.row import IMAGE_BYTES, READ_ERROR, TARGET
from levit_batch.sources.imagefolder_runs import MEAN_ROWS, cut_runs, starts_shard
from tests.support.shards import (
    CLASSES,
    good,
    named,
    open_at,
    pictures,
    read_all,
    write_folder,
    write_metadata_folder,
)

FOLDER = {"type": "imagefolder"}


def test_every_file_once_in_order_with_its_folder_as_label(tmp_path):
    folder = write_folder(tmp_path / "in", pictures())
    source = open_at(folder, target_column="label", keep_columns=["file_name", "image.path"], **FOLDER)
    shards = list(source.shards())
    read = read_all(pickle.loads(pickle.dumps(source)))
    rows = good(read)
    assert [shard.rows for shard in shards] == [60]
    assert [row[IMAGE_BYTES] for row in rows] == [p.data for p in pictures()]
    assert [row[TARGET] for row in rows] == [CLASSES[p.label] for p in pictures()]
    names = [f"{CLASSES[p.label]}/{p.name}" for p in pictures()]
    assert read["file_name"].to_pylist() == [row["image.path"] for row in rows] == names


def test_metadata_in_several_folders_and_other_image_columns(tmp_path):
    for i, name in enumerate(("a", "b")):
        folder = tmp_path / "in" / name
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes(pictures()[i].data)
        (folder / "metadata.csv").write_text(f"mask_file_name,n\nx.png,{i}\n")
    rows = read_all(open_at(tmp_path / "in", image_column="mask", keep_columns=["n", "file_name"], **FOLDER))
    assert rows["file_name"].to_pylist() == ["a/x.png", "b/x.png"]
    assert rows[IMAGE_BYTES].to_pylist() == [p.data for p in pictures()[:2]]
    with pytest.raises(SourceError, match="no column file_name or image_file_name"):
        list(open_at(tmp_path / "in", **FOLDER).shards())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_metadata_columns_that_are_there_twice_matter_where_they_are_needed(tmp_path, kind):
    (tmp_path / "x.png").write_bytes(pictures()[0].data)
    if kind == "csv":
        (tmp_path / "metadata.csv").write_text("n,file_name,n,image,m\n1,x.png,2,photo,3\n")
    else:
        names = ["n", "file_name", "n", "image", "m"]
        pq.write_table(pa.table([[1], ["x.png"], [2], ["photo"], [3]], names=names), tmp_path / "metadata.parquet")
    rows = read_all(open_at(tmp_path, keep_columns=["m", "image.path"], **FOLDER))
    assert rows["m"].to_pylist() == [3] and rows["image.path"].to_pylist() == ["x.png"]
    with pytest.raises(SourceError, match="source.keep_columns: several columns are called n,"):
        list(open_at(tmp_path, keep_columns=["n"], **FOLDER).shards())
    (tmp_path / f"metadata.{kind}").unlink()
    (tmp_path / "metadata.csv").write_text("file_name,file_name\nx.png,x.png\n")
    with pytest.raises(SourceError, match="metadata.csv: several columns are called file_name"):
        list(open_at(tmp_path, **FOLDER).shards())


def test_names_in_metadata_never_leave_their_folder(tmp_path):
    (tmp_path / "secret.png").write_bytes(pictures()[0].data)
    folder = tmp_path / "in" / "sub"
    folder.mkdir(parents=True)
    (tmp_path / "in" / "up.png").write_bytes(pictures()[0].data)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    names = [
        "../up.png",
        "../../secret.png",
        str(tmp_path / "secret.png"),
        "file:///etc/passwd",
        "link.png",
        "",
        "gone.png",
    ]
    (folder / "metadata.csv").write_text("file_name\n" + "".join(f'"{name}"\n' for name in names))
    errors = read_all(open_at(tmp_path / "in", **FOLDER))[READ_ERROR].to_pylist()
    assert [error.split(":")[0] for error in errors] == ["forbidden"] * 5 + ["missing", "missing"]


def test_links_pipes_and_unreadable_files_are_error_rows(tmp_path):
    folder = write_folder(tmp_path / "in", pictures()[:4])
    (tmp_path / "outside.jpg").write_bytes(pictures()[0].data)
    (folder / "a.jpg").symlink_to(tmp_path / "outside.jpg")
    (folder / "b.jpg").symlink_to(folder / "nowhere.jpg")
    os.mkfifo(folder / "c.jpg")
    (folder / "c0.jpg").symlink_to(folder / "china" / pictures()[0].name)
    (folder / ".hidden.jpg").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    rows = read_all(open_at(folder, keep_columns=["label"], **FOLDER))
    errors = rows[READ_ERROR].to_pylist()
    assert [error and error.split(":")[0] for error in errors[:4]] == ["forbidden", "missing", "missing", None]
    assert rows["label"].to_pylist()[:5] == [None] * 4 + ["china"]
    assert rows.num_rows == 8


def test_names_that_are_not_utf8_are_rows_in_their_place(tmp_path):
    data = pictures()[0].data
    root = os.fsencode(tmp_path / "in")
    names = [b"a.png", b"b\xfe.png", b"b\xff.png", b"b\\xff.png", b"c\xff/d.png", b"d\ne/f.png", b"g\n.png"]
    for name in names:
        os.makedirs(os.path.dirname(os.path.join(root, name)), exist_ok=True)
        with open(os.path.join(root, name), "wb") as file:
            file.write(data)
    source = open_at(tmp_path / "in", keep_columns=["file_name", "label"], **FOLDER)
    versions = [(shard.name, shard.version) for shard in source.shards()]
    rows = read_all(pickle.loads(pickle.dumps(source)))
    shown = [r"\b\xff.png", "a.png", r"b\xfe.png", r"b\xff.png", r"c\xff/d.png", "d\ne/f.png", "g\n.png"]
    assert rows["file_name"].to_pylist() == shown
    assert rows["label"].to_pylist() == [None] * 4 + [r"c\xff", "d\ne", None]
    bad = [error and error.split(":")[0] for error in rows[READ_ERROR].to_pylist()]
    assert bad == ["unreadable", None, "unreadable", None, "unreadable", None, None]
    assert rows[IMAGE_BYTES].to_pylist() == [None if error else data for error in bad]
    assert [(shard.name, shard.version) for shard in open_at(tmp_path / "in", **FOLDER).shards()] == versions


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_metadata_that_names_a_file_not_in_utf8(tmp_path, kind):
    raw = [b"a.png", b"b\xff.png"]
    for name in raw:
        (tmp_path / os.fsdecode(name)).write_bytes(pictures()[0].data)
    if kind == "csv":
        (tmp_path / "metadata.csv").write_bytes(b"file_name,n\n" + b"".join(name + b",1\n" for name in raw))
    else:
        names = pa.Array.from_buffers(pa.string(), 2, pa.array(raw).buffers())
        pq.write_table(pa.table({"file_name": names}), tmp_path / "metadata.parquet")
    rows = read_all(open_at(tmp_path, keep_columns=["file_name"], **FOLDER))
    assert rows["file_name"].to_pylist() == ["a.png", r"b\xff.png"]
    assert [error and error.split(":")[0] for error in rows[READ_ERROR].to_pylist()] == [None, "unreadable"]


def test_what_is_no_file_or_goes_away_never_blocks(tmp_path):
    folder = write_folder(tmp_path / "in", pictures()[:3])
    (folder / "d.png").mkdir()
    (folder / "d.png" / "in.png").write_bytes(pictures()[0].data)
    (folder / "gone.png").write_bytes(b"x")
    (folder / "loop.png").symlink_to("loop.png")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(os.fspath(folder / "s.png"))
        source = open_at(folder, keep_columns=["file_name"], **FOLDER)
        chunks = list(plan_chunks(source.shards(), 100))
        (folder / "gone.png").unlink()
        os.mkfifo(folder / "gone.png")
        rows = named(pa.concat_tables(table for chunk in chunks for table in source.read(chunk)), source)
    errors = dict(zip(rows["file_name"].to_pylist(), rows[READ_ERROR].to_pylist(), strict=True))
    bad = {name: error.split(":")[0] for name, error in errors.items() if error}
    assert bad == {"gone.png": "missing", "loop.png": "missing", "s.png": "missing"} and len(errors) == 7


def test_a_new_file_changes_one_shard(tmp_path):
    names = [f"2026-{i // 5000:02d}/{i:07d}.jpg" for i in range(20_000)]
    before = {name: names[start:stop] for name, start, stop in cut_runs(names)}
    assert 4 < len(before) < 24 and sum(map(len, before.values())) == 20_000
    more = sorted([*names, "2026-01/0007000x.jpg"])
    after = {name: more[start:stop] for name, start, stop in cut_runs(more)}
    assert list(after) == list(before)
    assert sum(before[name] != after[name] for name in before) == 1
    later = [*names, *(f"2026-04/{i:07d}.jpg" for i in range(20_000, 26_000))]
    after = {name: later[start:stop] for name, start, stop in cut_runs(later)}
    assert set(before) <= set(after)
    assert sum(before[name] != after[name] for name in before) == 1


def test_a_new_first_file_keeps_every_name():
    names = [f"{i:06d}.jpg" for i in range(1, 3 * MEAN_ROWS)]
    first = next(f"0{c}" for c in "abcdef" if not starts_shard(f"0{c}"))
    before = [name for name, _, _ in cut_runs(names)]
    assert [name for name, _, _ in cut_runs([first, *names])] == before
    assert before[0] == "images"


def test_versions_follow_content(tmp_path):
    folder = write_metadata_folder(tmp_path / "in", pictures()[:6], "csv")
    versions = [next(iter(open_at(folder, **FOLDER).shards())).version for _ in range(2)]
    (folder / pictures()[3].name).write_bytes(b"another image")
    versions.append(next(iter(open_at(folder, **FOLDER).shards())).version)
    text = (folder / "metadata.csv").read_text()
    (folder / "metadata.csv").write_text(text.replace("picture 2", "picture two"))
    versions.append(next(iter(open_at(folder, **FOLDER).shards())).version)
    assert versions[0] == versions[1] and len(set(versions)) == 3


def test_a_split_is_a_folder(tmp_path):
    write_folder(tmp_path / "in" / "train", pictures())
    write_folder(tmp_path / "in" / "test", pictures()[:5])
    assert read_all(open_at(tmp_path / "in", split="test", **FOLDER)).num_rows == 5


def test_malformed_folders(tmp_path):
    folder = write_metadata_folder(tmp_path / "in", pictures()[:3])
    (folder / "metadata.jsonl").write_text('{"file_name": "0000.jpeg"}\n{"file_')
    with pytest.raises(SourceError, match="metadata.jsonl: cannot be read"):
        list(open_at(folder, **FOLDER).shards())
    (folder / "metadata.jsonl").write_text('{"file_name": 5}\n')
    with pytest.raises(SourceError, match="file_name is int64"):
        list(open_at(folder, **FOLDER).shards())
    (folder / "metadata.jsonl").unlink()
    pq.write_table(pq.read_table(write_other(tmp_path)), folder / "metadata.parquet")
    with pytest.raises(SourceError, match="did you mean caption"):
        list(open_at(folder, keep_columns=["captain"], **FOLDER).shards())


def write_other(tmp_path):
    return write_metadata_folder(tmp_path / "other", pictures()[:3], "parquet") / "metadata.parquet"


def test_replicas_do_not_list_the_folder(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "in", pictures())
    source = open_at(folder, **FOLDER)
    chunks = list(source.shards())
    state = pickle.dumps(source)
    assert len(state) < 10_000 and chunks
    monkeypatch.setattr(os, "listdir", None)
    rows = pickle.loads(state).read(Chunk(chunks[0].name, chunks[0].url, chunks[0].version, 50, 60))
    assert sum(part.num_rows for part in rows) == 10


def of_numbers(folder, numbers, before=None):
    folder.mkdir(exist_ok=True)
    (folder / "metadata.csv").write_text("".join(["file_name,n\n", *(f"{i}.png,{n}\n" for i, n in enumerate(numbers))]))
    for i in range(len(numbers)):
        (folder / f"{i}.png").write_bytes(pictures()[i].data)
    source = open_at(folder, keep_columns=["n"], **FOLDER)
    source.before = before and pa.schema([("n", before)])
    return source


def test_numbers_of_a_csv_stay_what_they_are_in_the_table_that_is_there(tmp_path):
    source = of_numbers(tmp_path / "in", ["1.0", "2"], pa.int64())
    assert read_all(source)["n"].type == pa.int64() and source.kept().field("n").type == pa.int64()
    source = of_numbers(tmp_path / "in", ["1", "2"], pa.float64())
    assert read_all(source)["n"].to_pylist() == [1.0, 2.0]


@pytest.mark.parametrize("value", ["1.5", "many"])
def test_values_that_the_table_that_is_there_cannot_hold_are_refused(tmp_path, value):
    source = of_numbers(tmp_path / "in", ["1", value], pa.int64())
    with pytest.raises(SourceError, match="in: column n is .* here and int64 in the table that is there"):
        list(source.shards())
