"""Decode in a child process, so that an image that crashes or hangs its decoder costs one row and not the replica.

Slower than decoding in place (each image crosses two pipes), so it serves only chunks that have already killed a
process. The resize stays here: its work is bounded by sizes that are known by then.
"""

import math
import os
import selectors
import signal
import subprocess
import sys
import weakref
from contextlib import suppress
from typing import BinaryIO

import numpy as np

from levit_batch.errors import JobError, RowError
from levit_batch.pixels.decode import Decoded, Encoded
from levit_batch.pixels.decode_child import READY, REQUEST, RESPONSE
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

    def close(self) -> None:
        """End the child process. It also ends when this object, or this process, goes away."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name != "_child"}


class DecodeChild:
    """One child process and the two pipes to it."""

    def __init__(self, *arguments: object):
        # The child must find this package (and a test's decoders) wherever this process found it.
        path = os.pathsep.join([os.environ.get("PYTHONPATH", ""), *filter(None, sys.path)])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "levit_batch.pixels.decode_child", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1"},
        )
        self._finalizer = weakref.finalize(self, _end, self.process)
        if not self._readable(START_SECONDS) or self.process.stdout.read(len(READY)) != READY:
            self.end()
            raise JobError(
                f"the child process that decodes images did not start (exit status {self.process.returncode}); "
                "run `python -m levit_batch.pixels.decode_child 1000 0 60 8000000000` to see why"
            )

    def alive(self) -> bool:
        return self.process.poll() is None

    def end(self) -> None:
        self._finalizer()

    def decode(self, data: Encoded, timeout: float) -> Decoded:
        """Raises RowError; after one of kind `timeout` or `crashed` the child is gone."""
        try:
            self.process.stdin.write(REQUEST.pack(len(data)))
            self.process.stdin.write(data)
            self.process.stdin.flush()
            if not self._readable(timeout):
                self.end()
                raise RowError(f"timeout: decoding took longer than source.decode_timeout ({timeout:g} s)")
            return self._answer(self.process.stdout)
        except (BrokenPipeError, EOFError):
            self.process.wait()
            self.end()
            raise RowError(f"crashed: decoding ended its process ({_death(self.process.returncode)})") from None

    def _answer(self, replies: BinaryIO) -> Decoded:
        ok, height, width, *size = RESPONSE.unpack(_read(replies, RESPONSE.size))
        if not ok:
            raise RowError(bytes(_read(replies, height)).decode())
        return Decoded(_read(replies, height * width * 3).reshape(height, width, 3), tuple(size))

    def _readable(self, seconds: float) -> bool:
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            return bool(selector.select(seconds))


def _read(stream: BinaryIO, length: int) -> np.ndarray:
    block = np.empty(length, np.uint8)
    if stream.readinto(memoryview(block)) < length:
        raise EOFError
    return block


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    process.stdout.close()
    with suppress(BrokenPipeError):  # what was left to write has no reader any more
        process.stdin.close()


def _death(returncode: int) -> str:
    return signal.Signals(-returncode).name if returncode < 0 else f"exit status {returncode}"
