"""Five nights over a folder that grows and changes, with the configuration that ships as the example; then two at once."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.cli import main
from tests.golden.make_demo import BREAK, digits, png
from tests.nightly.test_notify import Hook
from tests.support.jobs import COMMAND, chunk_files, output_rows, wait_for

CONFIG = "configs/nightly.yaml"
NIGHT = ("nightly", CONFIG, "--set=source.keep_columns=[index]", "--set=compute.chunk_rows=40")
ROWS = 150  # of one shard


@dataclass
class Folder:
    """A growing source and its output. `truth`: shard -> the numbers of the digits that its current version shows."""

    root: Path
    truth: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self):
        (self.root / "images").mkdir(parents=True)
        order = np.random.default_rng(0).permutation(len(digits()[0]))
        self.unused = iter(int(i) for i in order)

    def put(self, shard: str, shifted: bool = False, broken: int = 0) -> int:
        """Write (or replace) a shard of digits not seen before; returns the bytes of its images."""
        numbers = [next(self.unused) for _ in range(ROWS)]
        ink = digits()[0]
        # A scanner that was turned over: the same digits, upside down and in negative.
        images = [png(16 - ink[i][::-1] if shifted else ink[i]) for i in numbers]
        images[:broken] = [BREAK["not-an-image"](b"")] * broken
        table = pa.table({"image": [{"bytes": data, "path": None} for data in images], "index": numbers})
        pq.write_table(table, self.root / "images" / shard)
        self.truth[shard] = numbers
        return sum(map(len, images))

    def night(self, *more: str, **env: str) -> int:
        """Run the night's command; its exit code."""
        with pytest.MonkeyPatch.context() as patch:
            for key, value in (self.variables() | env).items():
                patch.setenv(key, value)
            return main([*NIGHT, *more])

    def variables(self) -> dict[str, str]:
        return {"LEVIT_BATCH_IMAGES": str(self.root / "images"), "LEVIT_BATCH_OUTPUT": str(self.root / "out")}

    def record(self) -> dict:
        """Of the latest run."""
        return json.loads(max((self.root / "out" / "runs").iterdir()).read_text())

    def files(self) -> dict[Path, int]:
        """The table's files, and when each was written."""
        return {path: path.stat().st_mtime_ns for path in chunk_files(self.root / "out")}

    def assert_whole(self) -> None:
        """Each row of each shard's current version is there, once, in its place."""
        rows = output_rows(self.root / "out", ["shard", "row", "index"]).to_pylist()
        found = [(row["shard"], row["row"], row["index"]) for row in rows]
        assert found == sorted((s, row, i) for s, numbers in self.truth.items() for row, i in enumerate(numbers))


def test_five_nights(tmp_path, capfd):
    folder = Folder(tmp_path)
    first = folder.put("a.parquet") + folder.put("b.parquet")
    assert folder.night() == 0
    one = folder.record()
    assert (one["state"], one["rows"], one["bytes_read"]) == ("done", 2 * ROWS, first)
    assert one["drift"]["verdict"] == "no history"
    folder.assert_whole()

    before = folder.files()
    second = folder.put("c.parquet")
    assert folder.night("--fail-on-drift") == 0
    two = folder.record()
    assert (two["state"], two["rows"], two["bytes_read"]) == ("done", ROWS, second)
    assert two["shards"]["new"] == {"count": 1, "names": ["c.parquet"]} and two["drift"]["verdict"] == "ok"
    assert folder.files() | before == folder.files()  # what was there is as it was
    folder.assert_whole()

    spoil(folder.root / "images" / "a.parquet")  # whoever reads its rows again gets other ones, or an error
    third = folder.put("b.parquet") + folder.put("d.parquet")
    assert folder.night("--fail-on-drift") == 0
    three = folder.record()
    assert (three["state"], three["rows"], three["bytes_read"]) == ("done", 2 * ROWS, third)
    assert (three["shards"]["changed"]["names"], three["shards"]["new"]["names"]) == (["b.parquet"], ["d.parquet"])
    assert three["skipped"]["rows"] == 2 * ROWS and three["drift"]["verdict"] == "ok"
    folder.assert_whole()

    before = folder.files()
    capfd.readouterr()
    with Hook() as hook:
        assert folder.night("--fail-on-drift", "--set=notify.on=[success]", LEVIT_BATCH_WEBHOOK=hook.url) == 0
        ((_, _, told),) = hook.got
    assert told["text"] == f"levit-batch {folder.root}/out: nothing new: 600 rows are labelled"
    four = folder.record()
    assert (four["state"], four["rows"], four["bytes_read"], four["drift"]) == ("nothing new", 0, 0, None)
    assert "nothing new: 600 rows" in capfd.readouterr().out and folder.files() == before

    fifth = folder.put("e.parquet", shifted=True, broken=1)
    with Hook() as hook:
        assert folder.night("--fail-on-drift", LEVIT_BATCH_WEBHOOK=hook.url) == 4
        ((_, _, told),) = hook.got
    five = folder.record()
    assert (five["state"], five["rows"], five["bytes_read"]) == ("done with errors", ROWS, fifth)
    assert five["drift"]["verdict"] == "drift" and {"label_psi", "score_ks"} <= set(five["drift"]["breaches"])
    assert told["events"] == ["drift", "failure"] and told["exit_code"] == 4 and told["rows"] == ROWS
    assert told["drift"]["breaches"] == five["drift"]["breaches"] and "key=" not in str(told)
    assert f"; drift: {five['drift']['why']}" in told["text"] and "\n" not in told["text"]  # all that Slack shows
    folder.assert_whole()


def spoil(path: Path) -> None:
    """Zeros in the place of a file's rows; its size, time and footer stay."""
    before, data = path.stat(), bytearray(path.read_bytes())
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_too_many_errors_and_a_failure_are_told(tmp_path, capfd):
    folder = Folder(tmp_path)
    folder.put("a.parquet", broken=10)
    with Hook() as hook:
        assert folder.night(LEVIT_BATCH_WEBHOOK=hook.url) == 3
        assert folder.night("--set=source.image_column=nothing", LEVIT_BATCH_WEBHOOK=hook.url) == 2
        assert folder.night("--set=notify.on=[drift]", LEVIT_BATCH_WEBHOOK=hook.url) == 3
        (_, _, errors), (_, _, failure) = hook.got
    assert (errors["exit_code"], errors["events"], errors["errors"]) == (3, ["failure"], {"decode": 10})
    assert f"10 of {ROWS} rows in the output have an error" in errors["text"]
    assert (failure["exit_code"], failure["state"]) == (2, "failed") and ": failed: /" in failure["text"]
    assert "source.image_column" in failure["text"] and "Error" not in failure["text"]
    assert hook.url not in capfd.readouterr().err


def test_two_nights_at_once_leave_one_table(tmp_path, capfd):
    folder = Folder(tmp_path)
    for shard in "abc":
        folder.put(f"{shard}.parquet")
    command, environment = [*COMMAND, *NIGHT], os.environ | folder.variables()
    first = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    lock = folder.root / "out" / "_lock"
    wait_for(lambda: list(lock.glob("*.json")) or first.poll() is not None)
    assert first.poll() is None, first.stderr.read()
    with Hook() as hook:
        assert folder.night(LEVIT_BATCH_WEBHOOK=hook.url) == 75
        assert hook.got[0][2]["state"] == "locked"
    assert "is in use since 2" in (err := capfd.readouterr().err) and f"process {first.pid}" in err
    assert folder.night("--wait-for-lock") == 0  # a third one waits and finds nothing left to do
    assert first.wait(timeout=120) == 0
    assert folder.record()["state"] == "nothing new" and "waiting for the lock" in capfd.readouterr().err
    folder.assert_whole()
    assert not lock.exists()
