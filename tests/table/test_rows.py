import numpy as np
import pyarrow as pa
import pytest

from levit_batch.job.answers import Answers
from levit_batch.job.row import KEPT, TARGET, RowSpec, output_schema
from levit_batch.table.rows import output_table
from levit_batch.table.stats import add_stats, chunk_stats
from levit_batch.table.write import serialise

SPEC = RowSpec(
    class_names=("cat", "dog", "fox"),
    embedding_width=2,
    top_k=2,
    embeddings="float16",
    logits=True,
    per_head=True,
    kept=pa.schema([("name", pa.string()), ("label", pa.int16())]),
    target=pa.int32(),
)
READ = pa.table(
    {
        KEPT.format(0): ["a", "b", "c", "d"],
        KEPT.format(1): pa.array([7, 8, 9, 10], pa.int16()),
        TARGET: pa.array([0, 1, 2, None]),
    }
)


def answers(n, finite=None):
    return Answers(
        label=np.arange(n) % 3,
        score=np.linspace(0.5, 1, n, dtype=np.float32),
        top_labels=np.stack([np.arange(n) % 3, (np.arange(n) + 1) % 3], 1),
        top_scores=np.ones((n, 2), np.float32),
        embedding=np.arange(2 * n, dtype=np.float16).reshape(n, 2),
        logits=np.arange(3 * n, dtype=np.float32).reshape(n, 3),
        head_label=np.zeros(n, np.int64),
        distill_label=np.ones(n, np.int64),
        head_divergence=np.zeros(n, np.float32),
        finite=np.ones(n, bool) if finite is None else np.array(finite),
    )


def test_an_error_stays_in_its_row_and_moves_no_other():
    rows = output_table("s", 100, READ, [None, "decode: bad", None, "null: no image"], answers(2), SPEC).to_pylist()
    assert [row["row"] for row in rows] == [100, 101, 102, 103] and {row["shard"] for row in rows} == {"s"}
    assert [row["label_name"] for row in rows] == ["cat", None, "dog", None]
    assert [row["embedding"] for row in rows] == [[0, 1], None, [2, 3], None]
    assert [row["logits"] for row in rows][2] == [3, 4, 5]
    assert [row["error"] for row in rows] == [None, "decode: bad", None, "null: no image"]
    predictions = ("label", "score", "top_labels", "top_scores", "head_label", "distill_label", "head_divergence")
    assert all(rows[1][name] is None and rows[0][name] is not None for name in predictions)


def test_kept_columns_and_targets_are_carried_for_every_row():
    table = output_table("s", 0, READ, ["decode: bad"] * 4, None, SPEC)
    assert table["name"].to_pylist() == ["a", "b", "c", "d"]
    assert table["source_label"].to_pylist() == [7, 8, 9, 10] and table["source_label"].type == pa.int16()
    assert table["target"].to_pylist() == [0, 1, 2, None] and table["label"].null_count == 4


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_a_shard_that_holds_nothing_is_a_table_without_rows(tmp_path, format):
    """An empty tar: nothing was read, not even the columns that are kept."""
    table = output_table("s", 0, pa.table({}), [], None, SPEC)
    assert table.num_rows == 0 and table.schema.equals(output_schema(SPEC))
    stats = chunk_stats(table, SPEC.classes)
    assert add_stats([stats, stats])["rows"] == 0
    (tmp_path / "x").write_bytes(serialise(table, format))


def test_a_prediction_that_is_not_finite_becomes_an_error_row():
    rows = output_table(
        "s", 0, READ, [None, "decode: bad", None, None], answers(3, [True, False, True]), SPEC
    ).to_pylist()
    assert [row["label_name"] for row in rows] == ["cat", None, None, "fox"]
    assert (
        rows[2]["error"].startswith("predict: ") and rows[2]["embedding"] is None and rows[1]["error"] == "decode: bad"
    )


def test_no_rows_keep_the_schema():
    empty = output_table("s", 0, READ.slice(0, 0), [], None, SPEC)
    assert empty.num_rows == 0 and empty.schema.equals(output_table("s", 0, READ, [None] * 4, answers(4), SPEC).schema)
