"""Telling damaged data, which no further attempt will mend, from a read that failed."""

import re

import pyarrow as pa

from levit_batch.errors import LastingError, brief

# What Arrow's decoders say, as an OSError that comes without an error number. Anything else may pass.
DECODERS = re.compile(
    r"corrupt|unexpected end of (stream|page)|deserializ|decompress|inflate|GZipCodec|invalid (page|bit.?width)"
    r"|page (header|was smaller|size)|not in dictionary|magic bytes",
    re.IGNORECASE,
)
STORES = re.compile(r"AWS Error|curl|google::cloud|HTTP", re.IGNORECASE)


def damage(error: BaseException) -> str | None:
    """A short reason when `error` means damaged data, else None."""
    if isinstance(error, pa.ArrowInvalid | pa.ArrowNotImplementedError | pa.ArrowSerializationError):
        return brief(error, 200)
    decoding = isinstance(error, OSError) and not isinstance(error, LastingError) and error.errno is None
    if decoding and DECODERS.search(str(error)) and not STORES.search(str(error)):
        return brief(error, 200)
    return None


def not_parquet(path: str, error: BaseException) -> str:
    """Why the file at `path` was not read as Parquet, and for text what to do."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if path.lower().endswith((".csv", ".tsv", ".csv.gz")):
        return "CSV is not read: convert it to Parquet, with pandas read_csv(...).to_parquet(...), or DuckDB COPY ... TO"
    return f"not a readable Parquet file: {brief(error, 200).rstrip('.')}"
