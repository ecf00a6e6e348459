"""What several tests share: a checkpoint that tells digits apart, made once a session."""

import os
import signal

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
