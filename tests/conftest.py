"""What several tests share: a checkpoint that tells digits apart, made once a session; a Hub and an object store on loopback."""

import os
import signal
import sysconfig
import venv
from importlib.util import find_spec
from pathlib import Path

import pytest

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A shell that runs the tests in the background ignores Ctrl-C, and so would every command that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A tiny two-head LeViT of ten classes, saved in Hugging Face's form."""
    from tests.support.models import TINY, signal_model

    folder = tmp_path_factory.mktemp("checkpoint")
    signal_model(TINY.with_labels([f"LABEL_{i}" for i in range(10)])).save_pretrained(folder)
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub that this process talks to and whose failures it does not wait for long; its repositories are in tmp_path/hub."""
    from tests.support.hub_server import HubServer

    (tmp_path / "hub").mkdir()
    monkeypatch.setattr("levit_batch.storage.retry.FIRST_WAIT", 0.01)
    with HubServer(tmp_path / "hub") as server:
        server.use(monkeypatch, tmp_path / "cache")
        yield server


@pytest.fixture(scope="module")
def s3_server():
    from tests.support.s3_server import S3Server

    with S3Server() as server:
        yield server


@pytest.fixture
def s3(s3_server, monkeypatch):
    """An object store, shared by a module's tests, that this process and those it starts talk to."""
    s3_server.use(monkeypatch)
    return s3_server


@pytest.fixture
def python_without(tmp_path):
    """Gives, for a package, a Python that has what this one has, but neither that package nor ours."""

    def make(package):
        folder = tmp_path / f"without-{package}"
        venv.create(folder, symlinks=True)
        target = Path(sysconfig.get_path("purelib", "venv", {"base": str(folder)}))
        for item in Path(find_spec(package).origin).parents[1].iterdir():
            if not item.name.startswith(package) and item.suffix != ".pth":
                (target / item.name).symlink_to(item)
        return str(folder / "bin" / "python")

    return make
