"""Telling damaged data, which no further attempt will mend, from a read that failed."""

import re

import pyarrow as pa

# What Arrow's decoders say as an OSError that comes without an error number. Anything else may pass.
SAID_BY_DECODERS = re.compile(
    r"corrupt|unexpected end of (stream|page)|deserialize|decompress|invalid (page|thrift|header)|unknown (encoding|page)"
    r"|zstd|snappy|lz4|gzip|brotli|dictionary index|tthrift|couldn't|page header|negative|size mismatch|not enough",
    re.IGNORECASE,
)


def damage(error: BaseException) -> str | None:
    """A short reason when `error` means damaged data, else None."""
    if isinstance(error, pa.ArrowInvalid | pa.ArrowNotImplementedError | pa.ArrowSerializationError):
        return _brief(error)
    if isinstance(error, OSError) and error.errno is None and SAID_BY_DECODERS.search(str(error)):
        return _brief(error)
    return None


def _brief(error: BaseException) -> str:
    return str(error).splitlines()[0][:200]
