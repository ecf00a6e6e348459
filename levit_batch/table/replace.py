"""One shard's files take the place of others, in sight of readers, so that none of them sees a row twice.

The staged files stay where they are until the manifest names the new ones (`publish.py`): whatever is cut off in between, they
are there, and it is done again.
"""

import ctypes
import errno
import os
import secrets
from collections.abc import Set

from levit_batch.errors import OutputError
from levit_batch.storage.place import Place
from levit_batch.table.output import CHUNK_FILE, DATA, STAGING, SWAP, Output, remove_empty

AT_FDCWD, RENAME_EXCHANGE = -100, 2
NO_EXCHANGE = {errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.ENOTSUP, errno.EOPNOTSUPP}  # on this system or disk
NO_LINK = {*NO_EXCHANGE, errno.EPERM, errno.EMLINK}


def replace_shard(output: Output, folder: str, names: frozenset[str]) -> None:
    """Make `names` the chunk files that readers see of one shard, from those staged and those seen already.

    Every one of them must be there, or nothing is touched; and what is one of them is never deleted, so that also two runs
    that publish the same shard side by side lose nothing. On a local Linux disk the two folders change places in one
    system call. Elsewhere the old files go first, so that no reader of the folder sees a row twice.

    Raises OutputError when one of them is missing, or when the table was changed meanwhile.
    """
    require_files(output, folder, names)
    live = output.place.join(DATA, folder)
    try:
        if _names(live) != names:
            (_replace_local if output.place.local else _replace_store)(output, folder, names)
        _require(names, _names(live), folder)
    except OSError as e:
        raise OutputError(f"output.path: {live.url} cannot be replaced: {e}; run again to go on") from None


def require_files(output: Output, folder: str, names: frozenset[str]) -> None:
    """Raises OutputError when one of `names` is neither staged nor visible."""
    _require(names, _names(output.place.join(STAGING, folder)) | _names(output.place.join(DATA, folder)), folder)


def clear_staged(output: Output, folder: str, names: frozenset[str]) -> None:
    """Delete the staged ones of one shard's files `names`, which took their place; the folder, too, when nothing else is in it.

    Others stay: where a night was broken off they are the beginning of the shard's next version.
    """
    staged = output.place.join(STAGING, folder)
    _clear(output, staged, _names(staged) & names)


def _clear(output: Output, folder: Place, names: Set[str]) -> None:
    output.delete(folder.join(name) for name in sorted(names))
    if folder.local:
        remove_empty(folder.path, output.place.path)


def _replace_local(output: Output, folder: str, names: frozenset[str]) -> None:
    staged, live = output.place.join(STAGING, folder), output.place.join(DATA, folder)
    swap = output.place.join(SWAP, f"{folder}-{secrets.token_hex(8)}")  # no other run's
    seen = _names(live)
    try:
        if seen and names - seen and _linked(staged, live, swap, names) and _exchange(swap.path, live.path):
            if names <= _names(live):
                return _bring_back(swap, live)
            _exchange(swap.path, live.path)  # another run tidied up just then: nothing was replaced
            return None
    finally:
        _clear(output, swap, _names(swap))
    output.delete(live.join(name) for name in seen - names)
    for name in names - seen:
        data, size = staged.join(name).read_bytes(), staged.join(name).info().size
        if len(data) != size:
            raise OSError(errno.EIO, f"{len(data)} of {size} bytes could be read", staged.join(name).path)
        live.join(name).write_bytes(data)


def _linked(staged: Place, live: Place, swap: Place, names: frozenset[str]) -> bool:
    """Have all of the files stand in `swap`, too, and nothing else; False where a disk has no links."""
    os.makedirs(swap.path, exist_ok=True)
    for name in _names(swap):
        swap.join(name).delete()
    there = _names(staged)
    try:
        for name in names:
            os.link((staged if name in there else live).join(name).path, swap.join(name).path)
    except OSError as e:
        if e.errno not in NO_LINK:
            raise
        return False
    return True


def _bring_back(swap: Place, live: Place) -> None:
    """After the exchange: put what is not ours back beside the new files."""
    for info in swap.list(recursive=False):
        if CHUNK_FILE.fullmatch(info.base_name) is None:
            os.replace(info.path, live.join(info.base_name).path)


def _replace_store(output: Output, folder: str, names: frozenset[str]) -> None:
    staged, live = output.place.join(STAGING, folder), output.place.join(DATA, folder)
    seen = _names(live)
    output.delete(live.join(name) for name in seen - names)
    for name in names - seen:
        live.filesystem.copy_file(staged.join(name).path, live.join(name).path)


def _names(folder: Place) -> set[str]:
    return {info.base_name for info in folder.list(recursive=False) if CHUNK_FILE.fullmatch(info.base_name)}


def _require(names: frozenset[str], there: set[str], folder: str) -> None:
    if missing := sorted(names - there):
        raise OutputError(
            f"output.path: {len(missing)} of {len(names)} files of {folder} are not there any more ({missing[0]}): another "
            "run changed this output; nothing was replaced, run again"
        )


def _exchange(one: str, other: str) -> bool:
    """Let two folders change places in one step (Linux renameat2); False where the system or disk cannot.

    Raises OSError for anything else: then neither is touched.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    if rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0:
        return True
    failure = ctypes.get_errno()
    if failure in NO_EXCHANGE:
        return False
    raise OSError(failure, os.strerror(failure), one)
