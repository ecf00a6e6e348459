"""What a chunk's file says of itself in its footer, made small: a reader fetches the footer before any row."""

import base64
import json
import zlib
from itertools import accumulate, pairwise
from typing import Any

from levit_batch.job.row import FINGERPRINT

RECORD = b"levit_batch.record"
KEYS, VALUES = "~keys", "~values"  # of counts by number: see `_thin`


def footer(fingerprint: str, record: dict[str, Any]) -> dict[bytes, bytes]:
    """The metadata of a chunk's file. record: JSON values, see `Replica.write`; `record_in` gives it back as it is."""
    return {FINGERPRINT: fingerprint.encode(), RECORD: pack(record)}


def record_in(metadata: dict[bytes, bytes]) -> dict[str, Any]:
    """The record that a file's metadata holds. Raises KeyError, TypeError or ValueError where there is none."""
    packed = metadata[RECORD]
    if packed.startswith(b"{"):  # an older file's, as it was
        return json.loads(packed)
    try:
        return json.loads(zlib.decompress(base64.b64decode(packed)), object_hook=_whole)
    except zlib.error as e:
        raise ValueError(str(e)) from None


def pack(record: dict[str, Any]) -> bytes:
    """JSON, compressed, as text: metadata of Parquet is UTF-8."""
    text = json.dumps(_thin(record), separators=(",", ":"))
    return base64.b64encode(zlib.compress(text.encode(), 9))


def _thin(value: Any) -> Any:
    """`value` with each {number: x} as the gaps between its sorted numbers and the x: a quarter of the size, compressed."""
    if isinstance(value, list):
        return [_thin(one) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) > 1 and all(key.isdecimal() and str(int(key)) == key for key in value):
        keys = sorted(map(int, value))
        gaps = [b - a for a, b in pairwise([0, *keys])]
        return {KEYS: gaps, VALUES: [_thin(value[str(key)]) for key in keys]}
    return {key: _thin(one) for key, one in value.items()}


def _whole(value: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `_thin`, of one object."""
    if not isinstance(value.get(KEYS), list):  # a count: of targets that are called so
        return value
    return dict(zip(map(str, accumulate(value[KEYS])), value[VALUES], strict=True))
