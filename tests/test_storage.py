"""Files that are either whole or not there, also while other processes tidy up around them."""

import contextlib
import subprocess
import sys

from levit_batch.storage import place

TIDY = """
import contextlib, os, sys, time
while True:
    time.sleep(0.0001)
    with contextlib.suppress(OSError):
        os.rmdir(sys.argv[1])
"""


def test_write_outlasts_another_process_that_removes_the_emptied_folder(tmp_path):
    folder = tmp_path / "shard"
    tidy = subprocess.Popen([sys.executable, "-c", TIDY, str(folder)])
    try:
        for number in range(600):
            at = place(str(folder / f"{number}"))
            at.write_bytes(b"x" * number)
            assert at.read_bytes() == b"x" * number
            at.delete()
    finally:
        tidy.kill()
        tidy.wait()


def test_write_that_fails_leaves_nothing(tmp_path):
    (tmp_path / "taken").mkdir()
    with contextlib.suppress(OSError):
        place(str(tmp_path / "taken")).write_bytes(b"x")  # a folder is in its place
        raise AssertionError("it was written over a folder")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
