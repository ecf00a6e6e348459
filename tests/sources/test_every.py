"""What every source does, in every form of the images and at every place it reads: what is one source's own is in its file."""

import pickle
from functools import partial

import pyarrow.parquet as pq
import pytest

from levit_batch.errors import SourceError
from levit_batch.job.row import TARGET
from tests.support.shards import (
    CLASSES,
    expected,
    good,
    open_at,
    pictures,
    read_all,
    table,
    write_arrow,
    write_folder,
    write_ipc,
    write_metadata_folder,
    write_parquet,
    write_saved,
    write_splits,
    write_tars,
)

KEEP = {"target_column": "label", "keep_columns": ["caption"]}
ARROW = KEEP | {"type": "arrow"}
METADATA = KEEP | {"type": "imagefolder"}
FORMS = {  # how a folder is written, and how it is opened
    "parquet": (write_parquet, KEEP),
    "saved dataset": (write_saved, ARROW),
    "saved splits": (write_splits, ARROW | {"split": "train"}),
    "arrow file": (write_arrow, ARROW),
    "arrow stream": (partial(write_arrow, form="stream"), ARROW),
    "arrow file, zstd": (partial(write_arrow, compression="zstd"), ARROW),
    "arrow stream, zstd": (partial(write_arrow, form="stream", compression="zstd"), ARROW),
    "metadata.jsonl": (write_metadata_folder, METADATA),
    "metadata.csv": (partial(write_metadata_folder, kind="csv"), METADATA),
    "metadata.parquet": (partial(write_metadata_folder, kind="parquet"), METADATA),
    "folder": (write_folder, {"type": "imagefolder", "target_column": "label"}),
    "tars": (write_tars, {"type": "webdataset", "target_column": "cls"}),
}
ARROWS = [form for form in FORMS if form.startswith("arrow")]
REMOTE = ["parquet", "saved dataset", "saved splits", "metadata.jsonl", "folder", "tars"]


def rows_of(form, images):
    """What `good` gives of a form: folders tell a class's name, and neither they nor these tars a caption."""
    rows = expected(images, caption=form not in ("folder", "tars"))
    return [row | {TARGET: CLASSES[row[TARGET]]} for row in rows] if form == "folder" else rows


def sent(source):
    """The source as a replica gets it."""
    return pickle.loads(pickle.dumps(source))


def written(form, folder, images=None):
    FORMS[form][0](folder, images or pictures())
    return folder


def opened(form, path, **options):
    return open_at(path, **FORMS[form][1] | options)


@pytest.mark.parametrize("form", FORMS)
def test_every_row_once_in_order_in_chunks_of_any_size(tmp_path, form):
    source = sent(opened(form, written(form, tmp_path / "in")))
    for chunk_rows in (1, 4, 7, 11, 1000):
        assert good(read_all(source, chunk_rows)) == rows_of(form, pictures())
    if form in ("parquet", "saved dataset"):
        assert source.target_names == CLASSES and [shard.rows for shard in source.shards()] == [20, 20, 20]
    if form in ARROWS:
        assert [shard.groups for shard in source.shards()] == [(9,) * 6 + (6,)]


@pytest.mark.parametrize("form", REMOTE)
def test_every_row_once_in_order_from_s3_also_with_a_limit(s3, tmp_path, form):
    url = s3.put(written(form, tmp_path / "in"), f"every {form}")
    for path in [url, f"{url}/train-{{00000..00002}}.tar"] if form == "tars" else [url]:
        assert good(read_all(sent(opened(form, path)))) == rows_of(form, pictures())
    assert good(read_all(opened(form, url, limit=7), limit=7)) == rows_of(form, pictures())[:7]


@pytest.mark.parametrize(
    ("form", "path"),
    [
        ("parquet", "every/data/*.parquet"), ("parquet", "every"), ("metadata.jsonl", "every"), ("tars", "every"),
    ],
)  # fmt: skip
def test_every_row_once_in_order_from_an_address_on_the_hub_that_fails_now_and_then(hub, form, path):
    written(form, hub.folder / "datasets/org/every/data")
    hub.fail_every(5)
    source = opened(form, f"hf://datasets/org/{path}")
    assert good(read_all(sent(source))) == rows_of(form, pictures())


@pytest.mark.parametrize("form", FORMS)
def test_a_limit_counts_rows_and_stops(tmp_path, form):
    source = opened(form, written(form, tmp_path / "in"), limit=25)
    assert good(read_all(source, chunk_rows=7, limit=25)) == rows_of(form, pictures())[:25]


def test_zero_rows_are_a_shard_without_chunks(tmp_path):
    pq.write_table(table(pictures())[:0], written("parquet", tmp_path / "p") / "z.parquet")
    write_ipc(written("arrow file", tmp_path / "a") / "z.arrow", table(pictures())[:0])
    for form, folder, shards in (("parquet", "p", 4), ("arrow file", "a", 2)):
        source = opened(form, tmp_path / folder)
        assert len(list(source.shards())) == shards and read_all(source).num_rows == 60


MALFORMED = {
    "parquet": ("x.parquet", {b"": "it is empty", b"PAR1" + b"x" * 50: "not a readable Parquet file"}),
    "tars": ("x.tar", {b"": "an empty file", b"not a tar" * 500: "not a WebDataset tar"}),
}
NO_ARROW = [b"", b"ARROW1 or not", b"\xff" * 300]
MALFORMED |= {form: ("x.arrow", dict.fromkeys(NO_ARROW, "not a readable Arrow file")) for form in ARROWS[:2]}


@pytest.mark.parametrize("form", MALFORMED)
def test_malformed_files_are_named(tmp_path, form):
    name, contents = MALFORMED[form]
    folder = tmp_path if form == "tars" else written(form, tmp_path / "in")  # a plan opens the first tar only
    for content, says in contents.items():
        (folder / name).write_bytes(content)
        with pytest.raises(SourceError, match=f"{name}: .*{says}"):
            list(opened(form, folder).shards())


@pytest.mark.parametrize("form", ["parquet", *ARROWS[:2]])
@pytest.mark.parametrize("kept", [0.5, 1], ids=["half", "all but the end"])
def test_a_truncated_file_is_named(tmp_path, form, kept):
    path = sorted(written(form, tmp_path / "in").iterdir())[-1]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) - 100])
    with pytest.raises(SourceError, match=path.name):
        list(opened(form, tmp_path / "in").shards())


NOTHING = {
    "parquet": ("nothing in it ends with .parquet", "nothing found at"),
    "arrow file": ("nothing in it ends with .arrow", "nothing found at"),
    "folder": ("no images below", "no folder .*/none"),
    "tars": ("nothing in it ends with .tar", "nothing found at"),
}


@pytest.mark.parametrize("form", NOTHING)
def test_an_empty_folder_and_a_missing_one(tmp_path, form):
    for path, says in zip((tmp_path, tmp_path / "none"), NOTHING[form], strict=True):
        with pytest.raises(SourceError, match=says):
            list(opened(form, path).shards())


@pytest.mark.parametrize("form", ["parquet", "arrow file"])
@pytest.mark.parametrize(("name", "kind"), [("class/a.JPG", "imagefolder"), ("a.tar", "webdataset")])
def test_a_folder_of_another_type_is_named(tmp_path, form, name, kind):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match=f"nothing in it ends with .*read with source.type: {kind}$"):
        list(opened(form, tmp_path).shards())


def test_text_in_the_place_of_parquet_is_told_once(tmp_path):
    (tmp_path / "a.csv").write_text("path,label\n")
    with pytest.raises(SourceError, match=f"^{tmp_path}/a.csv: CSV is not read: convert it to Parquet"):
        list(opened("parquet", tmp_path / "a.csv").shards())
