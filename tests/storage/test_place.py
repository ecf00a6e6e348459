"""Files that are either whole or not there, also while other processes tidy up around them."""

import contextlib
import subprocess
import sys

import pytest

from levit_batch.storage.place import place

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


def test_a_file_on_s3_is_one_request(s3):
    for options in ("", "?region=us-east-1"):
        for data in (b"", b"x", b"y" * 9_000_000):
            at = place(f"s3://{s3.bucket}/out{options}").join("chunk.parquet")
            at.write_bytes(data)
            assert at.read_bytes() == data
            # The etag of what came in parts ends with how many there were.
            assert "-" not in s3.client.head_object(Bucket=s3.bucket, Key="out/chunk.parquet")["ETag"]
    large = place(f"s3://{s3.bucket}/out/large")
    large.write_bytes(b"z" * 25_000_000)
    assert large.info().size == 25_000_000
    assert "Uploads" not in s3.client.list_multipart_uploads(Bucket=s3.bucket)
    with pytest.raises(OSError):
        place("s3://no-such-bucket/out/chunk.parquet").write_bytes(b"x")
