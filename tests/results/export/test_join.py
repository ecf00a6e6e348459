"""Predictions beside the source's columns: the command, and the ways that the README shows for DuckDB and pyarrow."""

import json

import datasets
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import ConfigError, SourceError
from levit_batch.results.export.join import join
from levit_batch.sources.source import open_source
from levit_batch.table.write import whole_lists
from pipelines.cli import main
from tests.support.outputs import CLASSES, make_output


@pytest.fixture(scope="module", params=["parquet", "arrow"])
def made(request, tmp_path_factory):
    return make_output(tmp_path_factory.mktemp("join"), format=request.param, rows=50)


def source_table(folder) -> pa.Table:
    return pa.concat_tables(pq.read_table(file) for file in sorted((folder / "source").iterdir()))


def test_every_row_beside_its_source_row(made, tmp_path):
    out = tmp_path / "joined.parquet"
    assert join(made.output, open_source(made.config.source), str(out)) == (150, 0)
    table, source = pq.read_table(out), source_table(made.path.parent)
    assert table.schema.names[:3] == ["image", "note", "target"] and "levit_target" in table.schema.names
    for name in source.schema.names:
        assert table[name].to_pylist() == source[name].to_pylist()
    ours = whole_lists(made.table)
    for name in ("shard", "row", "label", "label_name", "embedding", "error"):
        assert table[name].to_pylist() == ours[name].to_pylist()
    assert [p.name for p in tmp_path.iterdir()] == ["joined.parquet"]


def test_some_columns_with_class_names_of_both_sides(tmp_path):
    features = datasets.Features({"kind": datasets.ClassLabel(names=["x", "y"]), "image": datasets.Image()})
    made = make_output(tmp_path, target=None)
    for file in (tmp_path / "source").iterdir():
        table = pq.read_table(file).append_column("kind", pa.array([i % 2 for i in range(40)]))
        table = table.select(["kind", "image", "note"])
        said = {"huggingface": json.dumps({"info": {"features": features.to_dict()}})}
        pq.write_table(table.replace_schema_metadata(said), file)
    made = make_output(tmp_path, name="again", target=None)
    out = tmp_path / "joined.parquet"
    join(made.output, open_source(made.config.source), str(out), ["kind", "image"])
    found = datasets.Dataset.from_parquet(str(out), cache_dir=str(tmp_path / "cache"))
    assert found.features["kind"].names == ["x", "y"] and found.features["label"].names == list(CLASSES)
    assert found[1]["image"].size == (32, 24) and found[1]["kind"] == 1 and "note" not in found.features


def test_rows_of_changed_and_missing_chunks(tmp_path):
    made = make_output(tmp_path)
    files = sorted(made.folder("part-02.parquet").iterdir())
    files[1].unlink()
    (tmp_path / "source/part-00.parquet").unlink()
    out = tmp_path / "joined.parquet"
    assert join(made.output, open_source(made.config.source), str(out)) == (40 + 24, 40)
    table = pq.read_table(out)
    notes = [f"note {row}" for row in table["row"].to_pylist()]
    assert table["note"].to_pylist() == notes and table["row"].to_pylist()[-24:] == [*range(16), *range(32, 40)]


def test_a_source_column_with_a_dot_in_its_name(tmp_path):
    make_output(tmp_path)
    for file in (tmp_path / "source").iterdir():
        pq.write_table(pq.read_table(file).append_column("a.b", pa.array(range(40))), file)
    made = make_output(tmp_path, name="again")
    join(made.output, open_source(made.config.source), str(tmp_path / "x"), ["a.b", "note"])
    assert pq.read_table(tmp_path / "x")["a.b"].to_pylist() == [*range(40)] * 3


def test_names_that_both_sides_have_in_whatever_case(tmp_path):
    make_output(tmp_path)
    for file in (tmp_path / "source").iterdir():
        rows = pq.read_table(file)
        for name in ("Label", "levit_label"):
            rows = rows.append_column(name, pa.array(range(40)))
        pq.write_table(rows, file)
    made = make_output(tmp_path, name="again")
    out = tmp_path / "joined.parquet"
    join(made.output, open_source(made.config.source), str(out))
    found = duckdb.sql(f"select label, levit_label, levit_levit_label from '{out}'")
    assert [row[:2] for row in found.fetchall()] == [(i, i) for i in range(40)] * 3
    assert pq.read_table(out)["levit_levit_label"].to_pylist() == made.table["label"].to_pylist()


def test_a_source_with_two_columns_of_one_name(tmp_path):
    made = make_output(tmp_path, shards=1)
    file, out = tmp_path / "source/part-00.parquet", tmp_path / "joined.parquet"
    rows = pq.read_table(file)
    pq.write_table(rows.append_column("twice", rows["note"]).append_column("twice", rows["note"]), file)
    with pytest.raises(ConfigError, match="--columns: the source has several columns called twice"):
        join(made.output, open_source(made.config.source), str(out))
    with pytest.raises(SourceError, match="no shard of the output is in the source as it was labelled"):
        join(made.output, open_source(made.config.source), str(out), ["note"])


def test_the_command(made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["join", str(made.path)]) == 0
    assert capsys.readouterr().out == "150 rows written to out-joined.parquet\n"
    assert main(["join", str(made.path), "--columns", "nothing", "--out", "other.parquet"]) == 2
    assert "the source has no column nothing; it has image, note, target" in capsys.readouterr().err


def test_only_parquet_sources(tmp_path):
    made = make_output(tmp_path)
    job = made.job
    job["config"]["source"]["type"] = "webdataset"
    made.output.write_json("job.json", job)
    with pytest.raises(ConfigError, match="the source is not Parquet"):
        join(made.output, open_source(made.config.source), str(tmp_path / "x"))


def test_duckdb_two_lines(tmp_path):
    made = make_output(tmp_path)
    source, out = tmp_path / "source", made.path
    rows = duckdb.sql(f"""
        select s.note, p.label_name from '{out}/data/**/*.parquet' p join
        read_parquet('{source}/*.parquet', filename=true, file_row_number=true) s
        on p.shard = parse_filename(s.filename) and p.row = s.file_row_number order by p.shard, p.row
    """).fetchall()
    assert rows == list(
        zip(source_table(tmp_path)["note"].to_pylist(), made.table["label_name"].to_pylist(), strict=True)
    )


def test_pyarrow_two_lines(tmp_path):
    made = make_output(tmp_path)
    rows = pq.read_table(made.path / "data", filters=[("shard", "==", "part-01.parquet")]).sort_by("row")
    table = pq.read_table(tmp_path / "source/part-01.parquet").append_column("label_name", rows["label_name"])
    assert table["label_name"].to_pylist() == made.table["label_name"].to_pylist()[40:80] and table.num_rows == 40
