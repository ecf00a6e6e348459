"""Decode in a child process, so that an image that crashes or hangs its decoder costs one row and not the replica.

Slower than decoding in place (each image crosses a pipe twice), so it serves only chunks that have already killed a
process. The resize stays here: its work is bounded by sizes that are known by then.
"""

import math
import os
import signal
import subprocess
import sys
import weakref
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe

import numpy as np

from levit_batch.errors import JobError, RowError
from levit_batch.pixels.decode import Decoded, Encoded
from levit_batch.pixels.decode_child import READY, SIZES
from levit_batch.pixels.preprocess import Preprocessor, as_buffer
from levit_batch.pixels.watchdog import Watchdog

START_SECONDS = 120.0
BASE_MEMORY = 1 << 30
BYTES_A_PIXEL = 24  # transparency over white, or 32-bit values scaled to 8, with their intermediate copies


class IsolatedPreprocessor(Preprocessor):
    """Same arguments, call and results as `Preprocessor`; adds errors of kind `timeout` and `crashed`.

    The child may use 1 GiB and 24 bytes for each of `max_pixels`; an image that needs more is `crashed`.
    """

    _child: "DecodeChild | None" = None

    def watchdog(self) -> Watchdog:
        return Watchdog(math.inf)  # the child's hang must not end this process

    def decode(self, data: Encoded | None) -> Decoded:
        if data is None:
            raise RowError("null: the image is null")
        if self._child is None or not self._child.alive():
            memory = BASE_MEMORY + BYTES_A_PIXEL * self.max_pixels
            self._child = DecodeChild(self.max_pixels, self.least_edge, self.timeout, memory)
        return self._child.decode(as_buffer(data), self.timeout)


class DecodeChild:
    """One child process and the connection to it. The process ends when this object, or this process, goes away."""

    def __init__(self, *arguments: object):
        # The child must find this package (and a test's decoders) wherever this process found it.
        path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), *filter(None, sys.path)])
        self.pipe, theirs = Pipe()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "levit_batch.pixels.decode_child", *map(str, (theirs.fileno(), *arguments))],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a C library prints is no result of ours
                env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
                pass_fds=[theirs.fileno()],
            )
        self.end = weakref.finalize(self, _end, self.process, self.pipe)
        with suppress(EOFError, OSError):
            if self.pipe.poll(START_SECONDS) and self.pipe.recv_bytes() == READY:
                return
        self.end()
        raise JobError(
            f"the child process that decodes images did not start (exit status {self.process.returncode}); "
            "run `python -m levit_batch.pixels.decode_child 1 1000 0 60 8000000000` to see why"
        )

    def alive(self) -> bool:
        return self.process.poll() is None

    def decode(self, data: Encoded, timeout: float) -> Decoded:
        """Raises RowError; after one of kind `timeout` or `crashed` the child is gone."""
        try:
            self.pipe.send_bytes(data)
            if not self.pipe.poll(timeout):
                self.end()
                raise RowError(f"timeout: decoding took longer than source.decode_timeout ({timeout:g} s)")
            return self._answer()
        except (OSError, EOFError):
            self.process.wait()
            self.end()
            raise RowError(f"crashed: decoding ended its process ({_death(self.process.returncode)})") from None

    def _answer(self) -> Decoded:
        sizes = self.pipe.recv_bytes()
        if len(sizes) != SIZES.size:
            raise RowError(sizes.decode().rstrip())
        height, width, *size = SIZES.unpack(sizes)
        pixels = np.empty((height, width, 3), np.uint8)
        self.pipe.recv_bytes_into(memoryview(pixels).cast("B"))
        return Decoded(pixels, tuple(size))


def _end(process: subprocess.Popen, pipe: Connection) -> None:
    process.kill()
    process.wait()
    pipe.close()


def _death(returncode: int) -> str:
    return signal.Signals(-returncode).name if returncode < 0 else f"exit status {returncode}"
