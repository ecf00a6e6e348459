"""Every row of a table is in the record of one run, also where runs were interrupted or killed."""

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from levit_batch.table.books import up_to_date
from levit_batch.table.compact import compact
from levit_batch.table.history import history, write_down
from levit_batch.table.lock import locked
from levit_batch.table.manifest import write_manifest
from levit_batch.table.output import folder_of
from levit_batch.table.read import open_output, read_table
from levit_batch.table.write import FINGERPRINT, footer, read_record, serialise
from tests.support.outputs import make_output

DONE, INTERRUPTED, KILLED = (f"202611{day:02d}T020000.12Z" for day in (1, 2, 3))
LATER = "20261104T020000.12Z"


@pytest.fixture
def output(tmp_path):
    """Three runs over three shards of 40 rows; the record of the second lacks rows, and the third has left none.

    The second has labelled a chunk of the last shard, too.
    """
    made = make_output(tmp_path, bad=2)
    shards = {folder_of(f"part-{i:02d}.parquet"): run for i, run in enumerate((DONE, INTERRUPTED, KILLED))}
    for file in made.path.glob("data/*/*.parquet"):
        at = made.output.place.join("data", file.parent.name, file.name)
        run = shards[file.parent.name]
        record = read_record(at)
        record["run"] = INTERRUPTED if run == KILLED and not record["first"] else run
        at.write_bytes(serialise(read_table(at), "parquet", footer(FINGERPRINT.decode(), record)))
    record = made.output.read_json(f"runs/{DONE}.json")
    made.output.write_json(f"runs/{DONE}.json", record | {"rows": 40})
    made.output.write_json(f"runs/{INTERRUPTED}.json", record | {"rows": 13, "state": "interrupted", "seconds": 4.0})
    return made.output


def told(runs):
    return [(run["name"], run["state"], run["rows"]) for run in runs]


ALL = [(DONE, "done with errors", 40), (INTERRUPTED, "interrupted", 56), (KILLED, "killed", 24)]


def test_history_accounts_for_every_row(output):
    assert told(history(output, 30)) == ALL and told(history(output, 2)) == ALL[1:]
    last = history(output, 30)[-1]
    assert last["started"] == "2026-11-03T02:00:00.120+00:00" and last["chunks"] == 2
    assert history(output, 30)[1]["images_per_second"] == 14
    assert sorted(os.listdir(os.path.join(output.place.path, "runs"))) == [f"{DONE}.json", f"{INTERRUPTED}.json"]


def test_a_run_under_way_is_not_called_killed(output):
    with locked(output.place):
        assert told(history(output, 30))[-1] == (KILLED, "running", 24)


def test_the_next_run_writes_it_down_once(output):
    found = write_down(output, up_to_date(output), LATER)
    assert told(found) == ALL[:0:-1]
    assert output.read_json(f"runs/{KILLED}.json")["rows"] == 24
    output.write_json(f"runs/{LATER}.json", {"state": "done", "rows": 5})
    assert write_down(output, up_to_date(output)) == []  # what was before the last whole run has been told
    assert told(history(output, 30))[:3] == ALL


def test_a_run_does_not_find_itself_cut_off(output):
    assert told(write_down(output, up_to_date(output), KILLED)) == ALL[1:2]


def test_merging_files_of_several_runs_changes_no_count(output):
    compact(output, lambda: None)
    assert told(history(output, 30)) == ALL
    compact(output, lambda: None)
    assert told(history(output, 30)) == ALL


def test_on_a_store_chunks_that_its_manifest_lacks_are_counted(output, s3):
    """A killed run left its mark and chunks that the manifest of the run before does not name."""
    manifest = up_to_date(output)
    there = open_output(s3.put(Path(output.place.path), "history"))
    runs = manifest.files["run"].to_pylist()
    write_manifest(there, replace(manifest, files=manifest.files.filter(pa.array([run != KILLED for run in runs]))))
    there.mark()
    with locked(there.place):
        assert told(history(there, 30))[-1] == (KILLED, "running", 24)
    assert told(history(there, 30)) == ALL
    write_down(there, up_to_date(there))
    assert there.read_json(f"runs/{KILLED}.json")["rows"] == 24
