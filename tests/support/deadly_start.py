"""Kills each of Ray's workers that is about to hold a replica, before it is at any chunk.

Switched on, in every Python process that has this folder on PYTHONPATH, by the environment variable `DEADLY_START`.
"""

import os
import sys


class Deadly:
    """Asked, as all of `sys.meta_path`, where a module is."""

    def find_spec(self, name: str, *_: object) -> None:
        if name == "pipelines.label.decoder" and "default_worker.py" in " ".join(sys.orig_argv):
            os._exit(3)


def register() -> None:
    sys.meta_path.insert(0, Deadly())
