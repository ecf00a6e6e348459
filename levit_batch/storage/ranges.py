"""A remote file read by exact ranges: nothing ahead of what is asked for, and every range tried again on its own."""

import io
from collections.abc import Callable

from levit_batch.errors import LastingError
from levit_batch.storage.hub import patient_hub
from levit_batch.storage.retry import ATTEMPTS, retry

Fetch = Callable[[int, int], bytes]

NO_RANGES = "the server does not answer range requests, or does not say how long the file is"


class RangeFile(io.RawIOBase):
    """Reads `size` bytes through `fetch(start, stop)`. Raises OSError when a range stays unreadable."""

    def __init__(self, fetch: Fetch, size: int, attempts: int = ATTEMPTS):
        self._fetch, self.size, self._at, self._attempts = fetch, size, 0, attempts

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        stop = self.size if size is None or size < 0 else min(self._at + size, self.size)
        if stop <= self._at:
            return b""
        data = retry(lambda: self._whole(self._at, stop), self._attempts)
        self._at = stop
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _whole(self, start: int, stop: int) -> bytes:
        data = self._fetch(start, stop)
        if len(data) != stop - start:
            raise OSError(f"{stop - start} bytes asked for, {len(data)} received")
        return data


def hub_file(url: str) -> RangeFile:
    """A file of the Hub by its resolve URL, with the token of this process."""
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    patient_hub()

    def fetch(start: int, stop: int) -> bytes:
        headers = build_hf_headers() | {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
        answer = get_session().get(url, headers=headers, timeout=60, follow_redirects=True)
        hf_raise_for_status(answer)
        return answer.content

    return RangeFile(fetch, get_hf_file_metadata(url).size, attempts=2)  # the client itself is patient


def http_file(filesystem, url: str) -> RangeFile:
    """A file of a web server that answers range requests."""
    file = retry(lambda: filesystem.open(url, "rb", cache_type="none"))
    if not file.size or not file.seekable():
        raise LastingError(NO_RANGES)

    def fetch(start: int, stop: int) -> bytes:
        file.seek(start)
        try:
            return file.read(stop - start)
        except ValueError:
            raise LastingError(NO_RANGES) from None

    return RangeFile(fetch, file.size)
