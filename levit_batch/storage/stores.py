"""The file systems that are no local disk: s3://, gs://, abfs:// natively, hf:// and http(s):// through fsspec."""

import functools
import os
import re

import pyarrow as pa
from pyarrow import fs

from levit_batch.errors import UserError
from levit_batch.storage.hub import patient_hub
from levit_batch.storage.ranges import http_file, hub_file
from levit_batch.storage.retry import retry
from levit_batch.storage.url import scheme, shown, split_options

NATIVE = {"s3", "gs", "gcs", "abfs", "abfss"}
FSSPEC = {"hf", "http", "https"}
PINNED = re.compile(
    r"(?:(?P<kind>datasets|spaces|models)/)?(?P<repo>[^/@]+/[^/@]+)@(?P<commit>[0-9a-f]{40})/(?P<path>.+)"
)
# For S3: without it each file, however small, goes up in parts: three requests, and parts that stay when a process is killed.
ONE_PUT = "allow_delayed_open=true"


def bucket(url: str) -> tuple[fs.FileSystem, str]:
    """The file system of a bucket, made once a process, and a path in it, taken as it is written."""
    bare, options = split_options(url)
    kind, rest = bare.split("://", 1)
    name, _, path = rest.partition("/")
    filesystem, root = _bucket(f"{kind}://{name}{options}")
    return filesystem, "/".join(filter(None, (root.rstrip("/"), path)))


@functools.lru_cache(64)
def _bucket(url: str) -> tuple[fs.FileSystem, str]:
    """With its root: the bucket's name, or Azure's container, which may stand in the path (then "")."""
    try:
        return fs.FileSystem.from_uri(url + ("&" if "?" in url else "?") + ONE_PUT if scheme(url) == "s3" else url)
    except (OSError, ValueError) as e:
        raise UserError(
            f"{shown(url)}: cannot be opened: {e}; check the address and the credentials in the environment"
        ) from e


def remote(kind: str, url: str) -> tuple[fs.FileSystem, str]:
    """A repository of the Hub, or the web, and a path in it."""
    if kind == "hf":
        return fs.PyFileSystem(Hub(_hub(os.environ.get("HF_ENDPOINT")))), url.removeprefix("hf://").rstrip("/")
    import fsspec

    return fs.PyFileSystem(Ranged(fsspec.filesystem(kind))), url


@functools.lru_cache(8)
def _hub(endpoint: str | None):
    """One for all threads: each instance asks about every repository and folder once."""
    from huggingface_hub import HfFileSystem

    patient_hub()
    return HfFileSystem(endpoint=endpoint or None)


class Ranged(fs.FSSpecHandler):
    """An fsspec file system whose files are read by exact ranges, and whose failures are tried again."""

    def get_file_info(self, paths):
        return retry(lambda: super(Ranged, self).get_file_info(paths))

    def get_file_info_selector(self, selector):
        return retry(lambda: super(Ranged, self).get_file_info_selector(selector))

    def open_input_file(self, path):
        return pa.PythonFile(http_file(self.fs, path), mode="r")

    def open_input_stream(self, path):
        return self.open_input_file(path)


class Hub(Ranged):
    """Repositories of the Hugging Face Hub."""

    def open_input_file(self, path):
        return pa.PythonFile(hub_file(self._url(path)), mode="r")

    def _url(self, path: str) -> str:
        """Where the file is downloaded from. At a commit nothing needs to be asked: a replica opens thousands of files."""
        pinned = PINNED.fullmatch(path)
        if not pinned:
            return self.fs.url(path)
        from huggingface_hub import hf_hub_url

        kind = (pinned["kind"] or "models").removesuffix("s")
        where = {"repo_type": kind, "revision": pinned["commit"], "endpoint": self.fs.endpoint}
        return hf_hub_url(pinned["repo"], pinned["path"], **where)
