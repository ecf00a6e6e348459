"""The benchmark of searching and reviewing runs on a few rows; its figures are read by people."""

import pyarrow.parquet as pq

from tests.benchmarks.near import commands, figures, measure, write_table
from tests.support.jobs import COMMAND


def test_it_measures_each_command(tmp_path):
    path, rows = write_table(tmp_path, 600, 200, 16, 10)
    found = {name: figures(name, rows, [measure([*COMMAND, *words])]) for name, words in commands(path).items()}
    assert list(found) == ["search", "review", "select"] and all(each["rows"] == 600 for each in found.values())
    assert all(each["rows_per_cpu_second"] > 0 and 50 < each["memory_mb"] < 4000 for each in found.values())
    assert pq.read_metadata(f"{path}/review.parquet").num_rows == 600
