"""Files that are either whole or not there, also while other processes tidy up around them."""

import contextlib
import subprocess
import sys

import pytest

from levit_batch.storage.place import place
from levit_batch.storage.redact import redact
from levit_batch.storage.url import shown

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


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("abfss://scans@account.dfs.core.windows.net/2026/x=1 y%20z.parquet", "scans/2026/x=1 y%20z.parquet"),
        ("abfs://account.blob.core.windows.net/scans/2026?enable_tls=true", "scans/2026"),
    ],
)
def test_azure_is_opened_by_pyarrow_and_its_container_is_no_user(url, path):
    at = place(url)
    assert (at.filesystem.type_name, at.path) == ("abfs", path)
    assert shown(at.join("x").url) == url.partition("?")[0] + "/x" and redact(url) == url


def test_password_of_an_azure_address_is_not_shown():
    assert "swordfish" not in shown("abfs://:swordfish@account/scans") + redact("abfs://:swordfish@account/scans")
