"""A review that is cut off goes on where it was, and ends as if it had not been; on a cluster it ends the same."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.results.near import neighbours as module
from levit_batch.results.near.kept import Kept
from levit_batch.results.near.neighbours import cut, merged
from levit_batch.results.near.review import review
from levit_batch.results.near.spill import best_two, spilling
from levit_batch.table.output import REVIEWING
from levit_batch.table.read import open_output
from levit_batch.table.scan import scan
from pipelines.cli import main
from tests.support import ROOT
from tests.support.jobs import wait_for
from tests.support.outputs import make_output

SMALL = {"BLOCK": 64, "PAIRS": 5_000}  # some fifty parts of the digits
START = """
import sys, time
from levit_batch.results.near import kept, neighbours, review
for name, value in {small!r}.items():
    setattr(neighbours, name, value)
review.BLOCK, review.PAIRS = neighbours.BLOCK, neighbours.PAIRS
write = kept.Kept.write
kept.Kept.write = lambda *args: (write(*args), time.sleep({seconds}))  # until it is killed
from pipelines.cli import main
sys.exit(main(["review", sys.argv[1], "--json"]))
"""


@pytest.fixture
def small(monkeypatch):
    for name, value in SMALL.items():
        monkeypatch.setattr(module, name, value)
        monkeypatch.setattr(f"levit_batch.results.near.review.{name}", value)


@pytest.fixture
def output(digits, tmp_path):
    """A copy of the digits' output without a review."""
    shutil.copytree(digits.path, tmp_path / "out", ignore=shutil.ignore_patterns("review.parquet"))
    return open_output(str(tmp_path / "out"))


def table_of(output):
    return pq.read_table(f"{output}/review.parquet")


def kept_files(output):
    return sorted(Path(str(output), REVIEWING).glob("*/*.npz"))


def done(monkeypatch) -> list[int]:
    """How many parts each following review does itself."""
    numbers, work = [], module.in_threads
    monkeypatch.setattr(module, "in_threads", lambda table, k, parts: numbers.append(len(parts)) or work(table, k, parts))
    return numbers


def test_killed_it_goes_on_and_ends_the_same(output, small, monkeypatch):
    code = START.format(small=SMALL, seconds=0.2)
    process = subprocess.Popen([sys.executable, "-c", code, str(output)], cwd=ROOT, stderr=subprocess.PIPE)
    wait_for(lambda: len(kept_files(output)) >= 5 or process.poll() is not None)
    process.kill()
    assert process.communicate() and process.returncode == -signal.SIGKILL
    before = len(kept_files(output))
    assert before >= 5 and not output.place.join("review.parquet").exists()
    numbers = done(monkeypatch)
    said = review(output)
    first = table_of(output)
    assert not output.place.join(REVIEWING).exists()
    assert review(output) == said and table_of(output).equals(first, check_metadata=True)
    assert numbers[1] > 30 and numbers[0] == numbers[1] - before


def test_broken_off_it_leaves_the_last_table(output, small):
    review(output)
    before = table_of(output)

    def broken_off(part, more, total):
        if part == "comparing":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        review(output, 0.5, broken_off)
    assert table_of(output).equals(before, check_metadata=True) and kept_files(output)
    assert {place.path for place in output.own_files()} >= {str(file) for file in kept_files(output)}
    review(output)
    assert table_of(output).equals(before, check_metadata=True) and not kept_files(output)


def test_of_another_table_nothing_is_taken_over(output, small, tmp_path, monkeypatch):
    numbers = done(monkeypatch)
    monkeypatch.setattr(Kept, "clear", lambda self: None)
    review(output)
    other = make_output(tmp_path / "other")
    shutil.copytree(f"{output}/{REVIEWING}", other.path / REVIEWING)
    review(other.output)
    rows = pa.concat_tables(scan(other.output))
    assert numbers[1] == len(list(cut(best_two(rows.filter(rows["error"].is_null())))))
    for file in kept_files(output)[:2]:  # what a machine that died may leave
        file.write_bytes(b"" if file.name == "000000.npz" else file.read_bytes()[:-40])
    review(output)
    assert numbers[2] == 2


def test_the_state_is_that_of_every_number(tmp_path):
    rows = pa.table({"shard": ["a", "a"], "row": [0, 1], "top_labels": pa.array([[0, 1], [2, 0]], pa.list_(pa.int64(), 2))})
    turned = rows.set_column(2, "top_labels", pa.array([[0, 1], [0, 2]], pa.list_(pa.int64(), 2)))
    vectors = np.arange(8, dtype=np.float16).reshape(2, 4)
    states = set()
    for table, stored in ((rows, vectors), (rows, vectors + np.eye(2, 4, dtype=np.float16)), (turned, vectors)):
        with spilling(str(tmp_path)) as spill:
            spill.add("v", table, stored)
            states.add(spill.state.hexdigest())
    assert len(states) == 3


def test_parts_hold_every_pair_once(small):
    top = np.stack([np.random.default_rng(0).permutation(6)[:2] for _ in range(900)]).astype(np.int32)
    top[0] = 5, -1
    parts = list(cut(top))
    assert len(parts) > 10 and all(sum(piece.pairs for piece in part) >= SMALL["PAIRS"] for part in parts[:-1])
    found = sorted((int(row), len(piece.members)) for part in parts for piece in part for row in piece.rows)
    sizes = np.bincount(top[top >= 0])
    assert found == sorted((row, sizes[label]) for row, labels in enumerate(top.tolist()) for label in labels if label >= 0)


def test_the_order_of_merging_does_not_matter():
    random = np.random.default_rng(1)
    places = random.integers(0, 9, (4, 50, 3)).astype(np.int32)
    lists = [(place % 4 / np.float32(4), place) for place in places]  # a row has one distance
    none = np.full((50, 3), np.inf, np.float32), np.full((50, 3), -1, np.int32)
    results = []
    for order in (range(4), (2, 0, 3, 1)):
        near = none
        for i in order:
            near = merged(near, lists[i])
        results.append(near)
    assert all(np.array_equal(one, other) for one, other in zip(*results, strict=True))


@pytest.mark.timeout(300)
def test_on_a_cluster_it_is_the_same(output, small, monkeypatch, capsys):
    from tests.support.clusters import running

    review(output)
    expected = table_of(output).to_pandas()
    monkeypatch.setattr(module, "in_threads", None)  # nothing is done here
    with running(num_cpus=1) as cluster:
        cluster.add_node(num_cpus=1)
        assert main(["review", str(output), "--address", cluster.address, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == 972
    pd.testing.assert_frame_equal(table_of(output).to_pandas(), expected, atol=1e-6)
    assert not kept_files(output)
