"""What a path or URL in the image column names: a file below `source.root`, or, when allowed, a page of a web server."""

import os
import posixpath
import re
import stat
from functools import lru_cache

from levit_batch.errors import SourceError
from levit_batch.job.config import SourceConfig
from levit_batch.sources.columns.web import fetch_url
from levit_batch.storage.place import Place, place, require_inside
from levit_batch.storage.retry import retry
from levit_batch.storage.url import scheme, shown

Found = tuple[bytes | None, str | None]  # an image, or "kind: message"

ESCAPED = re.compile(r"\\x[89a-f][0-9a-f]")  # what `printable` makes of a byte


def read_path(path: str | None, config: SourceConfig) -> Found:
    """The bytes that `path` names, or the reason why not."""
    if not path:
        return None, "null: no image"
    kind = scheme(path).lower()
    if kind in ("http", "https"):
        return fetch_url(path, config)
    if kind:
        return None, f"forbidden: {shown(path)}: only http:// and https:// may stand in the image column"
    if config.root is None:
        return None, f"missing: {path}: no bytes in the row, and source.root is not set to look the path up"
    return read_below(path, _root(config.root), config)


def read_below(path: str, root: Place, config: SourceConfig) -> Found:
    """The file `path` below `root`; a path or a symbolic link that leaves it is refused, and a file that is too large.

    Raises OSError when a store does not answer now.
    """
    return _read_local(path, root.path, config) if root.local else _read_remote(path, root, config)


def _read_local(path: str, root: str, config: SourceConfig) -> Found:
    try:
        real = require_inside(path, root)
        if not os.path.isfile(real):  # a folder, or a device: opening alone may do something to it
            return _not_there(path)
        with open(real, "rb", opener=_without_waiting) as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                return _not_there(path)
            if facts.st_size > config.max_image_bytes:
                return None, too_large(path, facts.st_size, config)
            return file.read(facts.st_size), None
    except SourceError:
        return None, f"forbidden: {path} leaves {os.path.basename(root)}"
    except FileNotFoundError:  # since a moment ago
        return _not_there(path)
    except (OSError, ValueError) as e:
        return None, f"unreadable: {path}: {getattr(e, 'strerror', None) or e}"


def _without_waiting(path: str, flags: int) -> int:
    """For `open`: what has become a pipe meanwhile does not wait for its writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _read_remote(path: str, root: Place, config: SourceConfig) -> Found:
    clean = posixpath.normpath(path)
    if posixpath.isabs(clean) or clean == ".." or clean.startswith("../"):
        return None, f"forbidden: {path} leaves {posixpath.basename(root.path)}"
    try:
        return read_whole(root.join(clean), path, config)
    except (FileNotFoundError, IsADirectoryError):
        return _not_there(path)
    except (PermissionError, ValueError) as e:
        return None, f"unreadable: {path}: {e}"


def read_whole(at: Place, path: str, config: SourceConfig) -> Found:
    """A file of a store, unless it is too large. Raises OSError when it cannot be read."""

    def read() -> Found:
        with at.filesystem.open_input_file(at.path) as stream:
            size = stream.size()
            return (None, too_large(path, size, config)) if size > config.max_image_bytes else (stream.read(size), None)

    return retry(read)


def too_large(what: str, size: int, config: SourceConfig) -> str:
    return f"unreadable: {what}: {size} bytes, source.max_image_bytes allows {config.max_image_bytes}"


def _not_there(path: str) -> Found:
    if ESCAPED.search(path):
        return None, f"unreadable: {path}: the name is not UTF-8; rename the file"
    return None, f"missing: {path}: no such file"


_root = lru_cache(8)(place)
