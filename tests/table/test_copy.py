"""A table copied into few files: each row once for every reader at any time, and only what changed is written again."""

import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import OutputError
from levit_batch.job.config import OutputConfig
from levit_batch.results.metrics import measure
from levit_batch.results.page.card import write_card
from levit_batch.storage.url import split_options
from levit_batch.table.books import up_to_date
from levit_batch.table.compact import compact
from levit_batch.table.copy import Copy
from levit_batch.table.manifest import read_manifest, write_manifest
from levit_batch.table.output import Output
from levit_batch.table.plan import make_plan
from levit_batch.table.read import open_output, require_files
from levit_batch.table.scan import scan
from tests.support import ROOT
from tests.support.outputs import CLASSES, make_output

ORDER = [("shard", "ascending"), ("row", "ascending")]


def at(to):
    return Output(OutputConfig(path=str(to)))


def update(made, to, rows=100, **more):
    return Copy(made.output, at(to)).update(lambda: None, rows, **more)


def rows_at(folder):
    return ds.dataset(f"{folder}/data").to_table().sort_by(ORDER)


def rows_of(made):
    return pa.concat_tables([table.replace_schema_metadata() for table in scan(made.output)]).sort_by(ORDER)


def times(folder):
    return {file.name: file.stat().st_mtime_ns for file in (folder / "data").iterdir()}


def test_few_files_hold_every_row_once(tmp_path, monkeypatch):
    made, to = make_output(tmp_path, shards=7), tmp_path / "copy"
    write_card(made.output, made.job, measure(made.output))
    told = []
    assert update(made, to, step=lambda *done: told.append(done)) == {"files": 4, "written": 4, "bytes": told[-1][1]}
    assert sorted(times(to)) == [f"0000{i}.parquet" for i in range(4)] and told[-1][0] == told[-1][1]
    assert rows_at(to).equals(rows_of(made))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    from datasets import load_dataset

    loaded = load_dataset(str(to), split="train")
    assert len(loaded) == made.table.num_rows and loaded.features["label"].names == list(CLASSES)


def test_only_files_whose_shards_changed_are_written_again(tmp_path):
    made, to = make_output(tmp_path, shards=6), tmp_path / "copy"
    update(made, to)
    before = times(to)
    assert update(made, to)["written"] == 0 and times(to) == before
    gone, changed = (sorted({file.folder for file in require_files(made.output)})[i] for i in (0, 2))
    for file in (made.path / "data" / gone).iterdir():
        file.unlink()
    again = next((made.path / "data" / changed).iterdir())
    again.unlink()
    assert update(made, to)["written"] == 2
    assert [name for name, time in times(to).items() if time == before[name]] == ["00002.parquet"]
    assert rows_at(to).equals(rows_of(made)) and rows_of(made).num_rows < 200


def test_a_file_whose_shards_are_all_gone_goes_and_a_new_shard_comes(tmp_path):
    made, to = make_output(tmp_path, shards=3), tmp_path / "copy"
    update(made, to, rows=40)
    for file in (made.path / "data" / require_files(made.output)[0].folder).iterdir():
        file.unlink()
    assert update(made, to, rows=40) == {"files": 2, "written": 0, "bytes": 0} and len(times(to)) == 2
    more = make_output(tmp_path / "more", shards=4)
    new = require_files(more.output)[-1].folder
    os.rename(more.path / "data" / new, made.path / "data" / new)
    assert update(made, to, rows=40)["files"] == 3 and rows_at(to).num_rows == 120


def test_what_was_killed_goes_on_and_leaves_nothing(tmp_path, monkeypatch):
    made, to, whole = make_output(tmp_path, shards=6), tmp_path / "copy", tmp_path / "whole"
    with monkeypatch.context() as patch, pytest.raises(KeyError):
        write = Copy._write
        patch.setattr(Copy, "_write", lambda copy, file, *rest: {}["killed"] if file.number == 1 else write(copy, file, *rest))
        update(made, to)
    done = times(to)
    assert "00001.parquet" not in done and "00000.parquet" in done
    (to / "data/.00001.parquet.999999999.0123abcd.tmp").write_bytes(b"half")
    (to / "data/.DS_Store").write_bytes(b"of a file manager, which no reader takes for a table")
    update(made, to)
    update(made, whole)
    (to / "data/.DS_Store").unlink()
    assert len(times(to)) == len(times(whole)) and times(to)["00000.parquet"] == done["00000.parquet"]
    assert rows_at(to).equals(rows_at(whole))


def test_merged_files_are_copied_part_by_part(tmp_path, monkeypatch):
    monkeypatch.setattr("levit_batch.table.merge.ROW_GROUP_ROWS", 15)
    monkeypatch.setattr("levit_batch.table.scan.ROW_GROUP_ROWS", 15)
    made, to = make_output(tmp_path), tmp_path / "copy"
    compact(made.output, lambda: None)
    monkeypatch.setattr("levit_batch.table.scan.PART_ROWS", 7)
    assert max(table.num_rows for table in scan(made.output)) == 7, "a merged file is not held whole"
    update(made, to)
    sizes = [pq.read_metadata(file).row_group(0).num_rows for file in sorted((to / "data").iterdir())]
    assert sizes == [15, 15] and rows_at(to).equals(rows_of(made))


def test_arrow_files_stay_arrow_files(tmp_path):
    made, to = make_output(tmp_path, format="arrow"), tmp_path / "copy"
    assert update(made, to)["files"] == 2
    import datasets

    loaded = [datasets.Dataset.from_file(str(file)) for file in sorted((to / "data").iterdir())]
    assert sum(map(len, loaded)) == 120 and loaded[0].features["label"].names == list(CLASSES)


def test_from_a_store_into_a_store(tmp_path, s3):
    made = make_output(tmp_path)
    stored, to = s3.put(made.path, "copy/labelled"), s3.put(tmp_path / "empty", "copy/few")
    copy = Copy(open_output(stored), at(to))
    assert copy.update(lambda: None, 100)["written"] == 2 and copy.update(lambda: None, 100)["written"] == 0
    files = [copy.at(file) for file in copy._there().values()]
    found = pa.concat_tables([pq.read_table(one.path, filesystem=one.filesystem) for one in files])
    assert found.sort_by(ORDER).equals(rows_of(made))


@pytest.mark.parametrize("name", ["out", "out/data", "out/copy", "link/data", "."])
def test_a_copy_lies_outside_of_its_table(tmp_path, name, monkeypatch):
    made = make_output(tmp_path)
    os.symlink(made.path, tmp_path / "link")
    before = times(made.path)
    if name == ".":
        monkeypatch.chdir(made.path)
        tmp_path = type(tmp_path)()
    with pytest.raises(OutputError, match="needs a folder of its own"):
        update(made, tmp_path / name)
    assert times(made.path) == before


def test_options_of_a_bucket_do_not_make_it_another(tmp_path, s3):
    stored = s3.put(make_output(tmp_path).path, "options/labelled")
    bare, options = split_options(stored)
    with pytest.raises(OutputError, match="needs a folder of its own"):
        Copy(open_output(stored), at(f"{bare}/data{options}&region=us-east-1"))
    Copy(open_output(stored), at(f"{bare}s{options}"))


def test_a_copy_does_not_lie_among_the_images(tmp_path):
    made = make_output(tmp_path / "images")
    config = made.job["config"]
    source = config["source"] | {"path": str(tmp_path / "images")}
    made.output.write_json("job.json", made.job | {"config": config | {"source": source}})
    with pytest.raises(OutputError, match="images/few: lies among what .* is made from: the next run would take it for images"):
        update(made, tmp_path / "images/few")
    assert update(made, tmp_path / "few")["files"] == 2


@pytest.mark.parametrize("name", ["job.json", "metrics.json", "report.html"])
def test_what_others_keep_in_a_folder_is_not_written_over(tmp_path, name):
    made, to = make_output(tmp_path), tmp_path / "copy"
    (to / "data").mkdir(parents=True)
    half = to / "data/.x.parquet.999999999.0123abcd.tmp"
    half.write_bytes(b"theirs")
    (to / name).write_text("theirs")
    with pytest.raises(OutputError, match=f"copy: holds a {name} that `compact --to` did not write; give another folder"):
        update(made, to)
    assert sorted(to.rglob("*")) == sorted([to / "data", half, to / name]) and (to / name).read_text() == "theirs"


def test_a_card_that_is_not_ours_stays(tmp_path):
    made, to = make_output(tmp_path), tmp_path / "copy"
    write_card(made.output, made.job, measure(made.output))
    to.mkdir()
    (to / "README.md").write_text("# mine")
    assert update(made, to)["files"] == 2 and (to / "README.md").read_text() == "# mine"


@pytest.mark.parametrize("name", ["data/x.parquet", "data/00000.arrow", "data/folder/00000.parquet", "data/000000.parquet"])
def test_a_folder_with_other_tables_is_refused(tmp_path, name):
    made, foreign = make_output(tmp_path), tmp_path / "copy" / name
    foreign.parent.mkdir(parents=True)
    foreign.write_bytes(b"theirs")
    with pytest.raises(OutputError, match="is no .parquet file that `compact --to` wrote"):
        update(made, tmp_path / "copy")
    assert foreign.read_bytes() == b"theirs"


def test_the_copy_of_another_table_and_a_damaged_one_are_refused(tmp_path):
    made, other, to = make_output(tmp_path / "a"), make_output(tmp_path / "b"), tmp_path / "copy"
    update(made, to)
    other.output.write_json("job.json", other.job | {"fingerprint": "0" * 64})
    with pytest.raises(OutputError, match="00000.parquet: a file of another job's table"):
        update(other, to)
    (to / "data/00001.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(OutputError, match="00001.parquet: not a file that levit-batch wrote"):
        update(made, to)


def test_a_run_does_not_label_into_a_copy(tmp_path):
    from levit_batch.table.fingerprint import check_same_job

    made, to = make_output(tmp_path), tmp_path / "copy"
    update(made, to)
    with pytest.raises(OutputError, match="holds tables, but no job.json"):
        check_same_job(None, at(to))
    with pytest.raises(OutputError, match="holds a copy .*, where nobody labels; use another folder"):
        make_plan([], at(to), None, [], afresh=True)  # --overwrite


def test_while_shards_are_replaced_nothing_is_copied(tmp_path):
    made, to = make_output(tmp_path), tmp_path / "copy"
    manifest = up_to_date(made.output)
    folder = require_files(made.output)[0].folder
    write_manifest(made.output, type(manifest)(manifest.files, manifest.sums, publishing=(folder,)))
    with pytest.raises(OutputError, match="a run is replacing shards there"):
        update(made, to)
    write_manifest(made.output, manifest)
    update(made, to)
    assert rows_at(to).num_rows == 120 and not read_manifest(made.output).publishing


def test_a_table_that_changes_meanwhile_is_said_and_the_next_time_goes_on(tmp_path):
    made, to = make_output(tmp_path), tmp_path / "copy"
    copy, last = Copy(made.output, at(to)), require_files(made.output)[-1]
    manifest = up_to_date(made.output)
    os.unlink(last.place.path)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(OutputError, match="changed while it was copied; run this again"):
        patch.setattr(Copy, "_snapshot", lambda copy: manifest)
        copy.update(lambda: None, 100)
    assert copy.update(lambda: None, 100)["written"] == 1 and rows_at(to).num_rows == 120 - 8


def test_files_with_other_columns_are_named(tmp_path):
    made = make_output(tmp_path)
    at = require_files(made.output)[1].place
    parquet = pq.read_table(at.path, partitioning=None)
    pq.write_table(parquet.drop_columns("note").replace_schema_metadata(pq.read_schema(at.path).metadata), at.path)
    with pytest.raises(OutputError, match=f"{os.path.basename(at.path)}: its columns are others"):
        update(made, tmp_path / "copy")


def test_the_command(tmp_path):
    made = make_output(tmp_path)
    command = [sys.executable, "-m", "pipelines.cli", "compact", str(made.path), "--to", str(tmp_path / "copy")]
    said = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert said.stdout == f"1 file, 1 of them written now: {tmp_path}/copy/data\n"
    assert not list((tmp_path / "copy").rglob("_lock/*")) and len(require_files(made.output)) == 9
    for to, why in (
        ("", "a folder or a URL, not empty"),
        ("https://example.org/x", "the web can only be read"),
        (f"{ROOT}/README.md", f"--to: {ROOT}/README.md cannot be written: Not a directory"),
    ):
        said = subprocess.run([*command[:-1], to], capture_output=True, text=True, cwd=ROOT)
        assert said.returncode == 2 and why in said.stderr and len(said.stderr.splitlines()) == 1
    assert len(require_files(made.output)) == 9
