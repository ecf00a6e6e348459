"""A real S3 server on loopback (moto's), and files put into it."""

import contextlib
import threading
import time
from pathlib import Path
from urllib.parse import unquote

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: object) -> None:
        pass

    def log_request(self, *_: object) -> None:
        self.server.requests.append((self.command, self.path))
        time.sleep(self.server.delay)

    def run_wsgi(self) -> None:
        """A connection that is to break off breaks off, and nothing is said of it."""
        with contextlib.suppress(ConnectionError):
            return super().run_wsgi()
        self.close_connection = True


class S3Server:
    """`with S3Server() as s3:` then `s3.use(monkeypatch)`, or `s3.environment` for child processes.

    requests: method and path of each that came in. delay: seconds that each of them takes at least. trouble: what it answers in
    place of what was asked (`s3_trouble.py`).
    """

    bucket = "pictures"

    def __init__(self, delay: float = 0.0):
        self.delay = delay

    def __enter__(self) -> "S3Server":
        app, self.trouble = DomainDispatcherApplication(create_backend_app), None

        def answer(environ, start):
            return self.trouble(app, environ, start) if self.trouble else app(environ, start)

        self._server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)
        self.requests = self._server.requests = []
        self._server.delay = self.delay
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        self.client = boto3.client("s3", endpoint_url=self.url, **keys)
        self.client.create_bucket(Bucket=self.bucket)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.delete_objects(
            Bucket=self.bucket, Delete={"Objects": [{"Key": key} for key in [*self.keys(), "-"]]}
        )
        self.client.delete_bucket(Bucket=self.bucket)
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def use(self, monkeypatch) -> None:
        """Let this process, and those it starts, talk to the server."""
        from levit_batch.storage import stores

        for name, value in self.environment.items():
            monkeypatch.setenv(name, value)
        stores._bucket.cache_clear()

    def put(self, folder: Path, prefix: str) -> str:
        """The files below `folder` as objects below `prefix`; the address of that."""
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.client.put_object(
                    Bucket=self.bucket, Key=f"{prefix}/{path.relative_to(folder)}", Body=path.read_bytes()
                )
        return f"s3://{self.bucket}/{prefix}"

    def opened(self) -> set[str]:
        """Keys (those with an ending: folders are looked at as well) of the objects that were looked at or read since the
        last time."""
        paths = {unquote(path.partition("?")[0]) for method, path in self.requests if method in ("GET", "HEAD")}
        self.requests.clear()
        return {path.removeprefix(f"/{self.bucket}/") for path in paths if "." in path}

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]
