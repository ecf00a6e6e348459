"""What glibc does with freed memory: kept where it is soon needed again, given back where it is not.

Left alone, it gives large blocks back to the kernel at every batch, and every forward pass and every decoded image pays for
fresh, zeroed pages (a third of torch's time on a CPU, measured); small ones it keeps for ever. Elsewhere than on glibc nothing
is done.
"""

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
KEEP, GROW = 1 << 30, 64 << 20  # bytes


def keep_memory() -> bool:
    """Set glibc's malloc for this process; returns whether it took."""
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(
        mallopt(option, value) for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, KEEP), (M_TOP_PAD, GROW))
    )


def return_memory() -> bool:
    """Give back to the kernel what is free in this process; returns whether there was any."""
    return _is_glibc() and bool(ctypes.CDLL(None).malloc_trim(0))


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"
