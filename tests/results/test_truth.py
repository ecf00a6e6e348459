"""Targets from a table of their own."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import SourceError
from levit_batch.results.metrics import measure
from levit_batch.results.truth import TruthTable
from tests.support.outputs import CLASSES, make_output

KEYS = ["shard", "row"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_output(tmp_path_factory.mktemp("truth"), target=None)


def write(path, table: pa.Table, **columns) -> str:
    for name, values in columns.items():
        table = table.append_column(name, pa.array(values))
    pq.write_table(table.take(np.random.default_rng(0).permutation(table.num_rows)), path)
    return str(path)


def test_numbers_by_shard_and_row(made, tmp_path):
    label = made.table["label"].to_pylist()
    said = [None if i is None else i if n % 3 else (i + 1) % 4 for n, i in enumerate(label)]
    path = write(tmp_path / "t.parquet", made.table.select(KEYS), target=said)
    found = measure(made.output, TruthTable(path, KEYS, "target", list(CLASSES)), KEYS)["target"]
    right = [n % 3 != 0 for n, i in enumerate(label) if i is not None]
    assert found["rows"] == len(right) and found["top1"] == pytest.approx(np.mean(right))


def test_names_by_one_key_and_rows_without_a_truth(made, tmp_path):
    half = made.table.select(["image.path"]).slice(0, 60)
    names = [name or "red" for name in made.table["label_name"].to_pylist()[:60]]
    path = write(tmp_path / "t.parquet", half, kind=names)
    truth = TruthTable(path, ["image.path"], "kind", list(CLASSES))
    found = measure(made.output, truth, truth.keys)["target"]
    assert found["top1"] == 1.0 and found["rows"] == 58 and found["without"] == 60 and found["failed"] == 2


def test_several_truths_a_row(made, tmp_path):
    path = write(
        tmp_path / "t.parquet", made.table.select(KEYS), real=[[0, 1, 2, 3] if i % 2 else [] for i in range(120)]
    )
    truth = TruthTable(path, KEYS, "real", list(CLASSES))
    found = measure(made.output, truth, truth.keys)["target"]
    assert found["top1"] == 1.0 and found["without"] + found["rows"] == 118


def test_what_is_wrong_with_a_table(made, tmp_path):
    twice = pa.concat_tables([made.table.select(KEYS)] * 2)
    path = write(tmp_path / "t.parquet", twice, target=[0] * 240)
    with pytest.raises(SourceError, match="more than once"):
        TruthTable(path, KEYS, "target", list(CLASSES))
    with pytest.raises(SourceError, match="has no column truth; its columns are shard, row, target: .* --on"):
        TruthTable(path, KEYS, "truth", list(CLASSES), "--on")
    (tmp_path / "t.csv").write_text("shard,row,target\n")
    (tmp_path / "text.parquet").write_text("shard,row,target\n")
    said = {"nothing.parquet": "there is no such file", "t.csv": "CSV is not read: convert", "text.parquet": "not a readable Par"}
    for name, why in said.items():
        with pytest.raises(SourceError, match=f"{name}: {why}"):
            TruthTable(str(tmp_path / name), KEYS, "target", list(CLASSES))
