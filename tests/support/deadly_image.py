"""A Pillow plugin whose images harm the process that opens them, to prove that a job survives such an image.

An image is `DEADLY` followed by the name of a deed: b"DEADLY segfault", b"DEADLY hang", b"DEADLY memory", b"DEADLY exit".
Put this folder on PYTHONPATH: `sitecustomize.py` then registers the plugin in every Python process that starts, Ray's
workers and decoding children included.
"""

import os
import re
import signal

from PIL import Image, ImageFile

MAGIC = b"DEADLY "


def deadly(deed: str) -> bytes:
    """The encoded image that does `deed` to whoever decodes it."""
    return MAGIC + deed.encode()


def _segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _hang() -> None:
    re.match(r"(a+)+$", "a" * 60 + "b")  # for years, in C code that never lets go of Python's lock


def _memory() -> None:
    bytearray(8 << 30)  # never touched: harmless where nothing limits the process, refused where something does
    raise SyntaxError("there was memory enough")


def _exit() -> None:
    os._exit(3)


class DeadlyImageFile(ImageFile.ImageFile):
    format = "DEADLY"
    format_description = "Harms the process that opens it"

    def _open(self) -> None:
        deed = self.fp.read().removeprefix(MAGIC).decode()
        {"segfault": _segfault, "hang": _hang, "memory": _memory, "exit": _exit}[deed]()


def register() -> None:
    Image.register_open(DeadlyImageFile.format, DeadlyImageFile, lambda prefix: prefix.startswith(MAGIC))
