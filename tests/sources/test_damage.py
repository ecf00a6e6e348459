"""Damage is told from a failed read by what Arrow itself says of damaged files."""

import io
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from levit_batch.errors import LastingError
from levit_batch.sources.damage import damage


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip", "lz4", "brotli"])
def test_what_arrow_says_of_damaged_pages(compression):
    texts = [f"{i} the same words again and again {i * i} " * 40 for i in range(400)]
    rows = pa.table({"image": pa.array([text.encode() for text in texts], pa.binary())})
    stream = io.BytesIO()
    pq.write_table(rows, stream, compression=compression, use_dictionary=False)
    good, rng, seen = stream.getvalue(), random.Random(1), 0
    end = len(good) - pq.read_metadata(stream).serialized_size - 60
    for _ in range(60):
        data = bytearray(good)
        at = rng.randrange(4, rng.choice([40, end]))  # the page's header, or anywhere in its data
        data[at : at + 20] = rng.randbytes(20)
        try:
            for _ in pq.ParquetFile(io.BytesIO(data)).iter_batches(5):
                pass
        except (pa.ArrowException, OSError) as e:
            assert damage(e), repr(e)
            seen += 1
    assert seen > 10


@pytest.mark.parametrize(
    "error",
    [
        OSError("When reading: AWS Error NETWORK_CONNECTION during GetObject operation: curlCode: 7, Couldn't connect"),
        OSError("When reading: AWS Error UNKNOWN (HTTP status 500) during GetObject: unexpected end of stream"),
        ConnectionResetError(104, "Connection reset by peer"),
        OSError(5, "Input/output error"),
        LastingError("the server answered 503: page header"),
        TimeoutError(),
    ],
)
def test_failed_reads_are_no_damage(error):
    assert damage(error) is None
