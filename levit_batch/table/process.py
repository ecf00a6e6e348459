"""Which process on which machine this is, told so exactly that another one cannot be taken for it."""

import os
import socket
from pathlib import Path


def machine() -> str:
    """Names the table of processes that a process id is looked up in.

    Two containers on one machine share its name's kernel but not their process ids, so the id space belongs to it.
    """
    return "/".join([socket.gethostname(), _read("/proc/sys/kernel/random/boot_id"), _link("/proc/self/ns/pid")])


def started(pid: int) -> str | None:
    """When process `pid` of this machine started, in the system's own unit; None when there is no such process.

    A process id is used again after a while; together with this it is not. "?" where the system does not tell.
    """
    stat = _read(f"/proc/{pid}/stat")
    if stat:
        fields = stat.rpartition(")")[2].split()  # what is before the last parenthesis may hold anything
        return None if fields[0] in "ZX" else fields[19]  # a zombie does nothing any more
    if Path("/proc/self/stat").exists():
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return "?"
    return "?"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
