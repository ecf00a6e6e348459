"""What a process of the job does about itself: imports without garbage collection, memory kept, given back or told, its end."""

import contextlib
import ctypes
import gc
import os
import platform
import resource
import sys
from collections.abc import Iterator
from typing import NoReturn

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
KEEP, GROW = 1 << 30, 64 << 20  # bytes


@contextlib.contextmanager
def quick_imports() -> Iterator[None]:
    """Large libraries imported in four fifths of the time, without garbage collection: modules leave none to look for.

    Nor is what was made inside looked through later: a whole collection takes 0.2 s otherwise, each time.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if before:
            gc.enable()


def keep_memory() -> bool:
    """Have glibc's malloc keep what is freed; returns whether it took. Elsewhere than on glibc nothing is done.

    Left alone, it gives large blocks back to the kernel at every batch, and every forward pass and every decoded image pays for
    fresh, zeroed pages (a third of torch's time on a CPU, measured); small ones it keeps for ever.
    """
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(
        mallopt(option, value) for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEEP), (M_TOP_PAD, GROW))
    )


def return_memory() -> bool:
    """Give back to the kernel what is free in this process; returns whether there was any."""
    return _is_glibc() and bool(ctypes.CDLL(None).malloc_trim(0))


def die(reason: object) -> NoReturn:
    """End this process as a crash would: another is started in its place, and the attempt under way counts."""
    print(reason, file=sys.stderr, flush=True)
    os._exit(1)


def peak_memory() -> int:
    """Bytes of memory that this process has had at the most. Linux tells KiB, macOS bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
