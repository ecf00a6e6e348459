"""The process that dies instead of the job: `python -m levit_batch.pixels.decode_child PIPE PIXELS LEAST_EDGE TIMEOUT MEMORY`.

Messages of bytes, never pickles, over the connection on file descriptor PIPE, until it ends. `isolate.py` has its other end.
    request    the encoded image
    response   SIZES, height and width of the pixels and of the image, then the pixels [height, width, 3];
               or, of any other length, one message: "kind: message" of the row's error
Imports no torch: it starts in a fifth of a second.
"""

import resource
import struct
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from levit_batch.errors import RowError
from levit_batch.pixels.decode import decode_for
from levit_batch.pixels.watchdog import Watchdog

SIZES = struct.Struct("<4I")
READY = b"ready"


def main(pipe: Connection, max_pixels: int, least_edge: int, timeout: float, memory: int) -> None:
    with suppress(OSError, ValueError):  # not every platform can limit the address space
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    pipe.send_bytes(READY)
    with suppress(EOFError):
        while True:
            data = pipe.recv_bytes()
            with Watchdog(timeout):  # the parent's clock ends this process first; this one is for orphans
                answer(pipe, data, max_pixels, least_edge)


def answer(pipe: Connection, data: bytes, max_pixels: int, least_edge: int) -> None:
    try:
        pixels, size = decode_for(data, max_pixels=max_pixels, least_edge=least_edge)
    except RowError as error:
        pipe.send_bytes(str(error).encode().ljust(SIZES.size + 1))
        return
    pipe.send_bytes(SIZES.pack(*pixels.shape[:2], *size))
    pipe.send_bytes(memoryview(pixels).cast("B"))


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
