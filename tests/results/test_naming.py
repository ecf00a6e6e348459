"""Which column names a row's file, and that pages and kept samples say it."""

import csv
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import OutputError
from levit_batch.job.load import load_config
from levit_batch.results.looks import Looks
from levit_batch.results.naming import file_column, kept_columns, with_kept
from levit_batch.results.near.carried import Carried
from levit_batch.results.page.kept_samples import read_samples, write_samples
from levit_batch.results.page.samples import pick_samples, thumbnails
from levit_batch.table.read import chunk_files
from pipelines.cli import main
from pipelines.label.execute import make_work
from pipelines.label.prepare import prepare
from pipelines.label.replica import make_album
from pipelines.screen.rows import print_fitting
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


def test_kept_columns_never_take_the_place_of_ours():
    row = with_kept({"shard": "s", "row": 1, "score": 0.5, "margin": 0.1}, {"id": 7, "margin": 9})
    assert list(row.items()) == [("shard", "s"), ("row", 1), ("id", 7), ("source_margin", 9), ("score", 0.5), ("margin", 0.1)]


def test_as_many_columns_as_fit(capsys):
    head, texts = ["file", "id", "caption", "row"], [["a.jpg", "7", "x" * 150, "1"]]
    print_fitting(None, head, texts, spare=(1, 2))
    assert capsys.readouterr().out.split() == ["file", "id", "row", "a.jpg", "7", "1"]
    print_fitting(None, head, [["a.jpg", "7", "x" * 140, "1"]], spare=(1, 2))
    assert capsys.readouterr().out.split()[:4] == head


@pytest.mark.parametrize("words", [("select", "--labelled"), ("search", "part-00.parquet:0"), ("review",), ("show", "--errors")])
def test_commands_name_the_files_on_the_screen_and_in_json(tmp_path, capsys, words):
    made = make_output(tmp_path, shards=1, width=16)
    by_row = {row["row"]: row for row in made.table.to_pylist()}
    line = [words[0], str(made.path), *words[1:]]
    assert main(line) == 0
    out = capsys.readouterr().out
    assert "image.path" in out and "note" in out and any(row["image.path"] in out for row in by_row.values())
    assert main([*line, "--json"]) == 0
    out = capsys.readouterr().out
    rows = _rows(json.loads(out)) if words[0] != "show" else map(json.loads, out.splitlines())
    for row in (rows := list(rows)):
        assert (row["image.path"], row["note"]) == (by_row[row["row"]]["image.path"], by_row[row["row"]]["note"])
    assert rows


def test_diff_names_the_files(tmp_path, capsys):
    made, other = make_output(tmp_path), make_output(tmp_path, name="other", seed=1)
    assert main(["diff", str(made.path), str(other.path), "--json"]) == 0
    by_row = {(r["shard"], r["row"]): r["image.path"] for r in made.table.to_pylist()}
    look = json.loads(capsys.readouterr().out)["look"]
    assert look and all(row["name"] == by_row[row["shard"], row["row"]] for row in look)
    assert main(["diff", str(made.path), str(other.path), "--html", str(tmp_path / "d.html")]) == 0
    assert look[0]["name"] in capsys.readouterr().out and f">{look[0]['name']}</span>" in (tmp_path / "d.html").read_text()


def _rows(said: dict) -> list[dict]:
    """The rows of whatever a command prints as JSON."""
    if "examples" in said:
        return [row for lists in said["examples"].values() for each in lists for row in each]
    return said.get("rows") or said["nearest"]


def test_a_selection_as_a_table_has_the_files(tmp_path):
    made = make_output(tmp_path)
    by_row = {(r["shard"], r["row"]): r["image.path"] for r in made.table.to_pylist()}
    assert main(["select", str(made.path), "--labelled", "--out", str(tmp_path / "x.csv")]) == 0
    with open(tmp_path / "x.csv") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(by_row[row["shard"], int(row["row"])] == row["image.path"] for row in rows)


def test_search_takes_a_files_name(tmp_path, capsys):
    made = make_output(tmp_path)
    row = made.table.to_pylist()[50]
    assert main(["search", str(made.path), row["image.path"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["query"] == {"shard": row["shard"], "row": row["row"]}
    shutil.copytree(tmp_path / "source", tmp_path / "more/source")
    shutil.copy(tmp_path / "more/source/part-01.parquet", tmp_path / "more/source/part-03.parquet")
    assert main(["search", str(make_output(tmp_path / "more").path), row["image.path"]]) == 2
    said = "have this image.path: name one by SHARD:ROW, as part-01.parquet:10 or part-03.parquet:10"
    assert f"2 rows of {tmp_path}/more/out {said}" in capsys.readouterr().err
    assert main(["search", str(made.path), "no.png"]) == 2
    assert "nor a file's name in the table" in capsys.readouterr().err


def test_the_table_of_a_review_has_the_kept_columns(tmp_path, monkeypatch):
    made = make_output(tmp_path)
    monkeypatch.setattr("levit_batch.results.near.review.ROW_GROUP_ROWS", 50)  # files have 16 rows
    assert main(["review", str(made.path)]) == 0
    found = pq.read_table(made.path / "review.parquet")
    good = made.table.filter(made.table["error"].is_null())
    assert found.num_rows == 118 and found.column_names[:5] == ["shard", "row", "image.path", "note", "version"]
    assert found.select([0, 1, 2, 3]).to_pylist() == good.select(["shard", "row", "image.path", "note"]).to_pylist()


def test_a_table_that_changed_while_it_was_reviewed(tmp_path):
    made = make_output(tmp_path)
    carried = Carried(chunk_files(made.output), ["note"], ["note"])
    rows = made.table.select(["shard", "row", "score"])
    assert carried.beside(rows.slice(0, 20)).column_names == ["shard", "row", "source_note", "score"]
    with pytest.raises(OutputError, match="changed meanwhile"):
        carried.beside(rows.slice(25, 10))
