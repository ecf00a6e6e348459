"""`levit-batch search` on digits that the demo's checkpoint labelled."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.neighbors import NearestNeighbors

from levit_batch.errors import CheckpointError
from levit_batch.inference.query import embed_image
from levit_batch.results.near import vectors as module
from levit_batch.results.near.search import find_row, search
from levit_batch.table.compact import compact
from levit_batch.table.lock import locked
from levit_batch.table.read import open_output
from levit_batch.table.rows import list_matrix
from levit_batch.table.scan import scan
from pipelines.cli import main
from tests.support import ROOT
from tests.support.outputs import make_output
from tests.support.planted import COPIES

ROW = f"{COPIES}:0"


def run(capsys, *words: str) -> tuple[int, str, str]:
    code = main(["search", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def everything(output) -> tuple[list[tuple[str, int]], np.ndarray]:
    """(shard, row) and the embedding of every good row, in order."""
    table = pa.concat_tables(scan(output, ["shard", "row", "error", "embedding"]))
    table = table.filter(pa.compute.is_null(table["error"]))
    where = list(zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True))
    return where, list_matrix(table["embedding"]).astype(np.float32)


def check_against_sklearn(output, n=15):
    where, embeddings = everything(output)
    exact = NearestNeighbors(n_neighbors=n + 1, metric="cosine", algorithm="brute").fit(embeddings)
    for place in (0, 200, len(where) - 1):
        distances, expected = exact.kneighbors(embeddings[place : place + 1])
        _, vector = find_row(output, *where[place])
        found, compared = search(output, vector, n, itself=where[place])
        assert compared == len(where) - 1 and where[place] not in [(pick["shard"], pick["row"]) for pick in found]
        others = [i for i in expected[0] if i != place][:n]
        assert {(pick["shard"], pick["row"]) for pick in found[:-2]} <= {where[i] for i in others}
        similarity = np.array([pick["similarity"] for pick in found])
        assert np.allclose(similarity, 1 - np.sort(distances[0][expected[0] != place])[:n], atol=1e-5)


def test_the_neighbours_are_scikit_learns(digits):
    check_against_sklearn(digits.output)


def test_merged_files_are_searched_row_group_by_row_group(digits, tmp_path, monkeypatch):
    shutil.copytree(digits.path, tmp_path / "out")
    monkeypatch.setattr("levit_batch.table.merge.ROW_GROUP_ROWS", 50)
    monkeypatch.setattr("levit_batch.table.scan.ROW_GROUP_ROWS", 50)
    output = open_output(str(tmp_path / "out"))
    with locked(output.place, 0) as claim:
        compact(output, claim.require, 1_000_000)
    read, groups = module.read_file, []
    monkeypatch.setattr(module, "read_file", lambda file, columns, group: groups.append(group) or read(file, columns, group))
    check_against_sklearn(output)
    assert max(group or 0 for group in groups) == 4, "225 rows in groups of 50"


def test_a_copy_finds_what_it_is_a_copy_of(digits):
    found = {kind: [] for kind, _ in digits.copies}
    for row, (kind, original) in enumerate(digits.copies):
        nearest, _ = search(digits.output, find_row(digits.output, COPIES, row)[1], 5, itself=(COPIES, row))
        found[kind].append(original in [(pick["shard"], pick["row"]) for pick in nearest])
    shares = {kind: np.mean(hits) for kind, hits in found.items()}
    print(shares)
    assert shares["re-encoded"] >= 0.95 and shares["resized"] >= 0.9


def test_an_image_finds_the_row_that_holds_it(digits, tmp_path, capsys):
    shard, row = digits.copies[0][1]
    image = pq.read_table(ROOT / "configs/demo/label" / shard)["image"][row]["bytes"].as_py()
    (tmp_path / "seven:7").write_bytes(image)  # named as a row would be
    code, out, _ = run(capsys, digits.path, str(tmp_path / "seven:7"), "-n", "3", "--json", "--html", str(tmp_path / "page.html"))
    answer = json.loads(out)
    best = answer["nearest"][0]
    assert code == 0 and len(answer["nearest"]) == 3 and answer["compared"] == 972
    assert (best["shard"], best["row"]) == (shard, row) and best["similarity"] > 0.9999
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg") == 4 and "http" not in page.replace("http-equiv", "")


def test_it_prints_a_table(digits, capsys):
    assert json.loads(run(capsys, digits.path, ROW, "--json")[1])["query"] == {"shard": COPIES, "row": 0}
    code, out, _ = run(capsys, digits.path, ROW, "-n", "2")
    lines = out.splitlines()
    assert code == 0 and lines[0].split()[:5] == ["similarity", "label", "score", "target", "image.path"]
    assert len(lines) == 4 and lines[-1] == "971 rows compared"


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("nothing.parquet:3", "has no shard nothing.parquet"),
        (f"{COPIES}:80", "has no such row"),
        ("nothing.png", "neither an image that can be read"),
        (str(ROOT / "README.md"), "README.md: cannot be searched for: decode"),
    ],
)
def test_what_cannot_be_searched_for_is_said_in_a_line(digits, query, said, capsys):
    code, out, err = run(capsys, digits.path, query, "--json")
    assert code == 2 and said in err and len(err.splitlines()) == 1 and not out


def test_other_weights_are_refused(digits, checkpoint, capsys):
    image = str(ROOT / "configs/demo/report.png")
    code, _, err = run(capsys, digits.path, image, "--checkpoint", str(checkpoint))
    assert code == 2 and "are not those that labelled the output" in err and len(err.splitlines()) == 1
    code, _, err = run(capsys, digits.path, image, "--checkpoint", "/nowhere/levit")
    assert code == 2 and "/nowhere/levit" in err and len(err.splitlines()) == 1


def test_weights_that_moved_are_asked_for(digits):
    job = json.loads((Path(digits.path) / "job.json").read_text())
    job["config"]["model"]["checkpoint"] = "/moved/levit"
    with pytest.raises(CheckpointError, match="/moved/levit: there is no such .* name them with --checkpoint"):
        embed_image(job, "x.png", b"")


def test_an_error_row_and_an_output_without_embeddings(tmp_path, capsys):
    made = make_output(tmp_path)
    code, _, err = run(capsys, str(made.path), "part-00.parquet:39")
    assert code == 2 and "has no embedding" in err
    bare = make_output(tmp_path, name="bare", embeddings="none")
    code, _, err = run(capsys, str(bare.path), "part-00.parquet:1")
    assert code == 2 and "has no embeddings; label again with predict.embeddings" in err


def test_arrow_outputs_and_float32(tmp_path):
    made = make_output(tmp_path, format="arrow", embeddings="float32")
    nearest, compared = search(made.output, find_row(made.output, "part-01.parquet", 4)[1], 1000)
    assert compared == len(nearest) == 118 and nearest[0]["similarity"] == pytest.approx(1, abs=1e-6)
    assert [pick["similarity"] for pick in nearest] == sorted((pick["similarity"] for pick in nearest), reverse=True)
