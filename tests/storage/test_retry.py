import errno
import time
from email.utils import formatdate

import pytest

from levit_batch.errors import LastingError
from levit_batch.storage import retry as module
from levit_batch.storage.ranges import RangeFile
from levit_batch.storage.retry import passing, retry, wait_seconds


class Answer:
    def __init__(self, status, **headers):
        self.status_code, self.headers = status, headers


class HTTPError(OSError):
    def __init__(self, status, **headers):
        super().__init__(f"status {status}")
        self.response = Answer(status, **headers)


def failing(*errors):
    left = list(errors)

    def call():
        if left:
            raise left.pop(0)
        return "done"

    return call


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    found = []
    monkeypatch.setattr(module.time, "sleep", found.append)
    return found


def test_what_passes_is_tried_again_with_growing_jittered_waits(waits):
    assert retry(failing(ConnectionResetError(), TimeoutError(), HTTPError(503), OSError(errno.EIO, "x"))) == "done"
    assert len(waits) == 4
    for i, wait in enumerate(waits):
        assert 0.25 * 2**i <= wait <= 0.5 * 2**i
    assert len({wait_seconds(OSError(), 3) for _ in range(20)}) > 10


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(),
        PermissionError(),
        HTTPError(404),
        HTTPError(403),
        ValueError(),
        LastingError("x"),
        OSError("When reading: AWS Error ACCESS_DENIED during GetObject"),
        OSError("When getting information: AWS Error NO_SUCH_BUCKET during HeadObject"),
    ],
)
def test_what_lasts_is_raised_at_once(error, waits):
    assert not passing(error)
    with pytest.raises(type(error)):
        retry(failing(error))
    assert not waits


def test_attempts_end_with_a_lasting_error(waits):
    with pytest.raises(LastingError, match="status 500"):
        retry(failing(*[HTTPError(500)] * 9), attempts=4)
    assert len(waits) == 3


def test_throttled_s3_passes():
    assert passing(OSError("When reading: AWS Error SLOW_DOWN during GetObject"))


def test_retry_after_in_seconds_as_a_date_and_as_a_rate_limit(waits):
    later = formatdate(time.time() + 40, usegmt=True)
    hub = {"ratelimit": '"api";r=0;t=25'}
    retry(
        failing(
            HTTPError(429, **{"Retry-After": "12"}), HTTPError(429, **{"Retry-After": later}), HTTPError(429, **hub)
        )
    )
    assert 12 <= waits[0] <= 16 and 38 <= waits[1] <= 46 and 25 <= waits[2] <= 30


def test_a_server_that_asks_for_too_long_has_failed(waits):
    with pytest.raises(LastingError):
        retry(failing(HTTPError(503, **{"Retry-After": "4000"})))
    assert not waits


def test_a_range_file_reads_exactly_what_is_asked():
    data, asked = bytes(range(250)), []

    def fetch(start, stop):
        asked.append((start, stop))
        if len(asked) == 1:
            return data[start : stop - 1]  # broke off
        return data[start:stop]

    file = RangeFile(fetch, len(data))
    file.seek(10)
    assert file.read(5) == data[10:15] and file.tell() == 15
    file.seek(-4, 2)
    assert file.read() == data[-4:] and file.read(1) == b""
    assert asked == [(10, 15), (10, 15), (246, 250)]
