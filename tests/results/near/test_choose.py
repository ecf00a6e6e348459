"""`levit-batch select`: the rows that the model is least sure of, by each reason, and spread."""

import json
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import OutputError
from levit_batch.results.near.choose import choose, ranks, spread
from levit_batch.results.near.review import review
from levit_batch.results.near.vectors import unit
from levit_batch.table.read import open_output
from levit_batch.table.rows import list_matrix
from levit_batch.table.scan import scan
from pipelines.cli import main
from tests.support.outputs import make_output

ALL = ["margin", "divergence", "outlier"]


def run(capsys, *words: str) -> tuple[int, str, str]:
    code = main(["select", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def at(pick: dict) -> tuple[str, int]:
    return pick["shard"], pick["row"]


@pytest.fixture(scope="module")
def reasons(digits):
    """The value of each reason for every good row, by (shard, row)."""
    review(digits.output)
    table = pa.concat_tables(scan(digits.output))
    table = table.filter(table["error"].is_null())
    scores = list_matrix(table["top_scores"])
    distance = pq.read_table(f"{digits.path}/review.parquet")["distance"].to_numpy()
    values = {"margin": scores[:, 0] - scores[:, 1], "divergence": table["head_divergence"].to_numpy(), "outlier": distance}
    index = pd.MultiIndex.from_arrays([table["shard"].to_pylist(), table["row"].to_pylist()])
    return pd.DataFrame(values | {"place": range(len(table))}, index), unit(list_matrix(table["embedding"]))


@pytest.mark.parametrize("reason", ALL)
def test_one_reason_gives_its_order(digits, reasons, reason):
    picks, of = choose(digits.output, 50, [reason], labelled=True)
    column = reasons[0][reason].sort_values(ascending=reason == "margin", kind="stable")
    assert [at(pick) for pick in picks] == column.index[:50].tolist() and of == 972
    assert [pick[reason] for pick in picks] == pytest.approx(column[:50].tolist())


def test_several_reasons_are_the_mean_of_their_ranks(digits, reasons):
    picks, _ = choose(digits.output, 972, ALL, labelled=True)
    frame = reasons[0][ALL] * [-1, 1, 1]
    expected = ((frame.rank(method="min") - 1) / (len(frame) - 1)).mean(axis=1)
    assert [pick["uncertainty"] for pick in picks] == pytest.approx([expected[at(pick)] for pick in picks])
    assert [pick["uncertainty"] for pick in picks] == sorted((pick["uncertainty"] for pick in picks), reverse=True)


def test_diverse_is_greedy_k_centre_over_the_least_sure(digits, reasons):
    values, vectors = reasons
    pool = values["margin"].sort_values(kind="stable").index[:200]
    places, expected = [values["place"][where] for where in pool], [0]
    distance = 1 - vectors[places] @ vectors[places].T
    while len(expected) < 20:
        expected.append(max(set(range(200)) - set(expected), key=lambda i: min(distance[i, c] for c in expected)))
    picks, _ = choose(digits.output, 20, diverse=True, labelled=True)
    assert [at(pick) for pick in picks] == [pool[i] for i in expected]
    plain = [values["place"][at(pick)] for pick in choose(digits.output, 20, labelled=True)[0]]
    radius = lambda chosen: (1 - vectors[places] @ vectors[chosen].T).min(1).max()  # noqa: E731
    assert radius([values["place"][at(pick)] for pick in picks]) < 0.9 * radius(plain)


def test_equal_values_have_equal_ranks_and_copies_are_chosen_last():
    assert ranks(np.array([3, 1, 1, 5])).tolist() == [2 / 3, 0, 0, 1]
    assert spread(np.eye(3, dtype=np.float32)[[0, 0, 1, 2]], 4)[:3] == [0, 2, 3]
    assert sorted(spread(np.ones((3, 1), np.float32), 9)) == [0, 1, 2]


@pytest.mark.parametrize("target", ["int", "list", None])
def test_rows_that_have_a_target_are_left_out(tmp_path, target):
    made = make_output(tmp_path, target=target)
    picks, of = choose(made.output, 1000)
    table = made.table.filter(made.table["error"].is_null())
    if target == "int":
        table = table.filter(table["target"].is_null())
    if target == "list":
        table = table.filter(pc.equal(pc.list_value_length(table["target"]), 0))
    assert of == len(picks) == table.num_rows > 0
    assert {at(pick) for pick in picks} == set(zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True))
    assert choose(made.output, 1000, labelled=True)[1] == 118


def test_the_command_its_tables_and_its_page(digits, tmp_path, capsys):
    review(digits.output)
    for ending, read in ((".csv", pyarrow.csv.read_csv), (".parquet", pq.read_table)):
        file, page = str(tmp_path / f"next{ending}"), tmp_path / "page.html"
        words = ("-n", "30", "--by", ",".join(ALL), "--labelled", "--diverse", "--out", file, "--html", str(page), "--json")
        code, out, _ = run(capsys, digits.path, *words)
        answer = json.loads(out)
        assert code == 0 and answer["of"] == 972 and len(answer["rows"]) == 30
        assert read(file).select(["shard", "row"]).to_pylist() == [{k: r[k] for k in ("shard", "row")} for r in answer["rows"]]
        assert page.read_text().count("data:image/jpeg") == 30
    code, out, _ = run(capsys, digits.path, "--labelled", "-n", "25")
    assert code == 0 and out.splitlines()[-1] == "25 rows of 972, the first 20 shown: --out has all"


def test_a_review_of_another_state_is_refused(tmp_path, digits):
    shutil.copytree(digits.path, tmp_path / "out")
    output = open_output(str(tmp_path / "out"))
    review(output)
    table = pq.read_table(tmp_path / "out/review.parquet")
    place = table.column_names.index("version")
    for other in (table.slice(1), table.set_column(place, "version", pa.array(["0" * 8] * table.num_rows))):
        pq.write_table(other, tmp_path / "out/review.parquet")
        with pytest.raises(OutputError, match="is of another state of the table"):
            choose(output, 5, ["outlier"], labelled=True)


@pytest.mark.parametrize(
    ("changes", "words", "said"),
    [
        ({"target": "int"}, ["--by", "size"], "--by size: there is margin, divergence, outlier"),
        ({"top_k": 1}, [], "predict.top_k of this output is 1"),
        ({}, ["--by", "divergence"], "predict.per_head=true"),
        ({}, ["--by", "outlier"], "no review.parquet there; write it with `levit-batch review"),
        ({"embeddings": "none"}, ["--diverse"], "has no embeddings"),
        ({}, ["--out", "next.xlsx"], "ends in .csv or .parquet"),
    ],
)
def test_what_an_output_has_not_is_said_in_a_line(tmp_path, changes, words, said, capsys):
    code, out, err = run(capsys, str(make_output(tmp_path, **changes).path), *words)
    assert code == 2 and said in err and len(err.splitlines()) == 1 and not out


def test_nothing_is_left_to_choose(digits, capsys):
    code, _, err = run(capsys, digits.path)
    assert code == 2 and "all have a target (--labelled takes these, too)" in err
