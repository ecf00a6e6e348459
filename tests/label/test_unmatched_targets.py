"""Targets that no class of the model is called: told by every command, of the whole table, whatever became of its files."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.results.metrics import measure
from levit_batch.table.manifest import MANIFEST
from levit_batch.table.read import open_output
from pipelines.cli import main
from tests.support import DIGITS
from tests.support.jobs import Job
from tests.support.labelled import DIGITS_MODEL

ROWS, WHOLE = 120, b"IEND\xaeB`\x82"  # how a PNG ends
LINE = "31 targets match no class of the model (cat: 21, dog: 10)"


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The first digits, of whose targets 21 are cats and 10 dogs, and of which row 3 has no image yet; in chunks of 20 rows."""
    folder = tmp_path_factory.mktemp("unmatched")
    digits = pq.read_table(sorted(DIGITS.glob("*.parquet"))[0])
    digits = digits.filter(pa.array([((one or {}).get("bytes") or b"").endswith(WHOLE) for one in digits["image"].to_pylist()]))
    digits = digits.slice(0, ROWS)
    names = json.loads((DIGITS_MODEL / "config.json").read_text())["id2label"]
    kinds = [names[str(label)] for label in digits["label"].to_pylist()]
    kinds[:10], kinds[50:71] = ["dog"] * 10, ["cat"] * 21
    kinds[3], kinds[100] = names["0"], None
    kinds[10] = "dog"
    images = [one["bytes"] for one in digits["image"].to_pylist()]
    (folder / "images").mkdir()
    for i, image in enumerate(images):
        if i != 3:
            (folder / f"images/{i}.png").write_bytes(image)
    (folder / "late.png").write_bytes(images[3])
    table = pa.table({"path": [f"{i}.png" for i in range(ROWS)], "kind": kinds, "id": range(ROWS)})
    pq.write_table(table, folder / "table.parquet")
    source = {"path": str(folder / "table.parquet"), "image_column": "path", "root": str(folder / "images")}
    source |= {"target_column": "kind", "keep_columns": ["id"]}
    job = Job(folder, DIGITS_MODEL, source=source, compute={"chunk_rows": 20}, output={"max_error_rate": 1})
    job.first = job.run()
    return job


def target(path) -> dict:
    """What the sums say that the next run starts from, and those of the footers alike."""
    output, manifest = open_output(str(path)), path / MANIFEST
    kept, data = measure(output), manifest.read_bytes()
    manifest.unlink()
    assert measure(output) == kept
    manifest.write_bytes(data)
    return kept["target"]


def test_every_word_of_accuracy_is_of_the_rows_it_is_about(job, capsys):
    said = job.first.stdout.splitlines()
    assert any(line.startswith("top-1 ") and " of 87 rows" in line for line in said) and any(LINE in line for line in said)
    found = target(job.output)
    assert (found["rows"], found["without"], found["failed"]) == (87, 1, 1)
    assert found["unmatched"] == {"rows": 31, "targets": 31, "names": {"cat": 21, "dog": 10}}
    assert json.loads(job.runs()[0].read_text())["unmatched_targets"] == 31
    page, card = ((job.output / name).read_text() for name in ("report.html", "README.md"))
    assert LINE in page and "1 rows have no target" in page and LINE in card
    assert main(["evaluate", str(job.output)]) == 0 and LINE in capsys.readouterr().out


def test_it_stays_when_files_are_merged_labelled_again_and_rescored(job, tmp_path, capsys):
    before = target(job.output)["unmatched"]
    assert main(["compact", str(job.output)]) == 0 and target(job.output)["unmatched"] == before
    words = ["rescore", str(job.output), "--checkpoint", str(DIGITS_MODEL), "--out", str(tmp_path / "new")]
    assert main(words) == 0 and LINE in capsys.readouterr().out
    assert target(tmp_path / "new") | {"calibration": None} == target(job.output) | {"calibration": None}
    (job.folder / "late.png").rename(job.folder / "images/3.png")
    again = job.run("run", "--retry-errors")
    assert "labelled 20 rows" in again.stdout and " of 88 rows" in again.stdout and LINE in again.stdout
    found = target(job.output)
    assert (found["unmatched"], found["rows"], found["without"], found["failed"]) == (before, 88, 1, 0)


def test_another_truth_is_named_until_rows_are_labelled(job, capsys):
    truth = job.folder / "truth.parquet"
    pq.write_table(pa.table({"id": range(60), "klass": ["zero"] * 59 + ["cow"]}), truth)
    words = ["evaluate", str(job.output), "--target-table", str(truth), "--on", "id", "--target-column", "klass"]
    assert main(words) == 0
    said, name = capsys.readouterr().out, "against …/truth.parquet (klass)"
    assert f"judged {name}" in said and "1 target matches no class of the model (cow: 1)" in said
    metrics = json.loads((job.output / "metrics.json").read_text())
    assert metrics["truth"] == {"table": "…/truth.parquet", "column": "klass"}
    for file in ("report.html", "README.md"):
        assert name in (job.output / file).read_text()
    later = job.run().stdout
    assert "nothing new" in later and f" {name}" in later and "(cow: 1)" in later
    assert "against" not in (anew := job.run("run", "--overwrite").stdout) and LINE in anew
