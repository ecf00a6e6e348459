"""The process that dies instead of the job: `python -m levit_batch.pixels.decode_child MAX_PIXELS LEAST_EDGE TIMEOUT MEMORY`.

Reads images on stdin, writes pixels on stdout, until stdin ends. `isolate.py` is the other end of the pipes.
    request    <Q   bytes, then the encoded image
    response   <?4I ok, height and width of the pixels, of the image, then the pixels [height, width, 3];
               or not ok, length, three zeros, then the error's text
Imports no torch: it starts in a fifth of a second.
"""

import os
import resource
import struct
import sys
from contextlib import suppress
from typing import BinaryIO

from levit_batch.errors import RowError
from levit_batch.pixels.decode import decode_for
from levit_batch.pixels.watchdog import Watchdog

REQUEST = struct.Struct("<Q")
RESPONSE = struct.Struct("<?4I")
READY = b"ready"


def main(max_pixels: int, least_edge: int, timeout: float, memory: int) -> None:
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a C library prints must not end up among the pixels
    with suppress(OSError, ValueError):  # not every platform can limit the address space
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    replies.write(READY)
    replies.flush()
    while header := sys.stdin.buffer.read(REQUEST.size):
        data = sys.stdin.buffer.read(*REQUEST.unpack(header))
        with Watchdog(timeout):  # the parent's clock ends this process first; this one is for orphans
            _reply(replies, data, max_pixels=max_pixels, least_edge=least_edge)


def _reply(replies: BinaryIO, data: bytes, **options) -> None:
    try:
        pixels, size = decode_for(data, **options)
        head, body = RESPONSE.pack(True, *pixels.shape[:2], *size), memoryview(pixels).cast("B")
    except RowError as error:
        body = str(error).encode()
        head = RESPONSE.pack(False, len(body), 0, 0, 0)
    replies.write(head)
    replies.write(body)
    replies.flush()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
