"""Which column names a row's file, and that pages and kept samples say it."""

import pyarrow as pa
import pytest

from levit_batch.job.load import load_config
from levit_batch.results.looks import Looks
from levit_batch.results.naming import file_column, kept_columns
from levit_batch.results.page.kept_samples import read_samples, write_samples
from levit_batch.results.page.samples import pick_samples, thumbnails
from pipelines.cli import main
from pipelines.label.execute import make_work
from pipelines.label.prepare import prepare
from pipelines.label.replica import make_album
from tests.support.jobs import Job
from tests.support.labelled import DIGITS_MODEL, RUN
from tests.support.outputs import make_output
from tests.support.shards import pictures, write_folder


def schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema({"shard": pa.string(), "row": pa.int64(), **columns, "label": pa.int64(), "error": pa.string()})


@pytest.mark.parametrize(
    ("columns", "column"),
    [
        ({"id": pa.int64(), "file_name": pa.large_string()}, "file_name"),
        ({"__key__": pa.string(), "txt": pa.string()}, "__key__"),
        ({"photo.path": pa.string(), "image.path": pa.string()}, "photo.path"),
        ({"photo": pa.string()}, "photo"),
        ({"photo": pa.binary()}, None),
        ({"id": pa.int64()}, None),
    ],
)
def test_the_column_that_names_a_file(columns, column):
    assert file_column(schema(**columns), "photo") == column
    assert file_column(schema(source_Shard=pa.string()), "Shard") == "source_Shard", "as it is called in the output"


def test_kept_columns_are_those_that_are_not_ours():
    assert kept_columns(schema(id=pa.int64(), file_name=pa.string()), "file_name") == ["file_name", "id"]


def test_samples_and_their_captions_name_the_file(tmp_path):
    made = make_output(tmp_path)
    by_row = {(r["shard"], r["row"]): r["image.path"] for r in made.table.to_pylist()}
    picks = pick_samples(made.output)
    assert picks and all(pick["name"] == by_row[pick["shard"], pick["row"]] for pick in picks)
    (looks := Looks()).merge(thumbnails("left out", picks))
    write_samples(made.output, looks)
    assert [pick["name"] for pick in read_samples(made.output)] == [pick["name"] for pick in picks]
    assert main(["evaluate", str(made.path)]) == 0
    page = (made.path / "report.html").read_text()
    assert f"<code>{by_row['part-00.parquet', 38]}</code>: null" in page
    best = picks[0]
    assert f'title="{best["shard"]} · {best["row"]}">{best["name"]}</span>' in page


def test_what_a_replica_keeps_of_an_image_folder_has_the_files_names(tmp_path):
    write_folder(tmp_path / "photos", pictures(4))
    source = {"type": "imagefolder", "path": str(tmp_path / "photos"), "target_column": None}
    prepared = prepare(load_config(str(Job(tmp_path, DIGITS_MODEL, source=source).file)), False)
    assert make_album(make_work(prepared, RUN, False)).naming.column == "file_name"
