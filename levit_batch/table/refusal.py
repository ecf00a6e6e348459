"""A store that takes nothing more: a disk that is full or read-only, no permission, no such bucket.

Known by where it happens, not by its text alone: the same error of a read is the source's, and may pass.
"""

import contextlib
import errno
from collections.abc import Iterator

from levit_batch.errors import RefusedError
from levit_batch.storage.retry import passing
from levit_batch.table.output import Output

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


@contextlib.contextmanager
def writing(output: Output) -> Iterator[None]:
    """Inside, something is written to `output`. Raises RefusedError for what waiting does not mend, else what was raised."""
    try:
        yield
    except OSError as e:
        if passing(e) and e.errno not in FULL:
            raise
        raise RefusedError(
            f"output.path: {output} cannot be written: {e}; what is written stays: mend that, and the same command goes on"
        ) from e
