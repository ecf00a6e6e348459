"""What a path or URL in the image column names: a file below `source.root`, or, when allowed, a page of a web server."""

import os
import posixpath
from functools import lru_cache

from levit_batch.config import SourceConfig
from levit_batch.errors import SourceError
from levit_batch.retry import retry
from levit_batch.sources.web import fetch_url
from levit_batch.storage import Place, place, require_inside, scheme, shown

Found = tuple[bytes | None, str | None]  # an image, or "kind: message"


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
    return read_below(path, _root(config.root))


def read_below(path: str, root: Place) -> Found:
    """The file `path` below `root`; a path or a symbolic link that leaves it is refused.

    Raises OSError when a store does not answer now.
    """
    return _read_local(path, root.path) if root.local else _read_remote(path, root)


def _read_local(path: str, root: str) -> Found:
    try:
        real = require_inside(path, root)
        if not os.path.isfile(real):  # a folder, or a pipe that would never end
            return None, f"missing: {path}: no such file"
        with open(real, "rb") as file:
            return file.read(), None
    except SourceError:
        return None, f"forbidden: {path} leaves {os.path.basename(root)}"
    except (OSError, ValueError) as e:
        return None, f"unreadable: {path}: {getattr(e, 'strerror', None) or e}"


def _read_remote(path: str, root: Place) -> Found:
    clean = posixpath.normpath(path)
    if posixpath.isabs(clean) or clean == ".." or clean.startswith("../"):
        return None, f"forbidden: {path} leaves {posixpath.basename(root.path)}"
    try:
        return retry(root.join(clean).read_bytes), None
    except (FileNotFoundError, IsADirectoryError):
        return None, f"missing: {path}: no such file"
    except PermissionError as e:
        return None, f"unreadable: {path}: {e}"


_root = lru_cache(8)(place)
