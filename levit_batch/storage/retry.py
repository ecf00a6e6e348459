"""Try again what failed for a reason that passes: throttling, server errors, broken connections."""

import random
import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")

ATTEMPTS = 6
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds; doubled at each attempt, with jitter
LONGEST_RETRY_AFTER = 300.0  # a server that wants more than this has failed
PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}
PASSING_TYPES = ("TransportError", "TimeoutException", "ClientError", "RemoteProtocolError")  # httpx, aiohttp
LASTING_OS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
LASTING_S3 = re.compile(
    r"AWS Error (ACCESS_DENIED|NO_SUCH|INVALID|RESOURCE_NOT_FOUND|SIGNATURE|UNRECOGNIZED_CLIENT)|HTTP status 40[0134]\b"
)


class LastingError(OSError):
    """A read that failed, was tried again as often as makes sense, and is not to be tried once more."""


def retry(call: Callable[[], ResultT], attempts: int = ATTEMPTS) -> ResultT:
    """The result of `call`. What fails for a passing reason is called again after a wait, honouring Retry-After.

    Raises what `call` raised when that will not pass, and LastingError after `attempts`.
    """
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except Exception as e:
            if not passing(e):
                raise
            if attempt == attempts or (wait := wait_seconds(e, attempt)) > LONGEST_RETRY_AFTER:
                raise lasting(e) from e
        time.sleep(wait)
    raise AssertionError("unreachable")


def passing(error: BaseException) -> bool:
    """Whether the same call may succeed later."""
    if isinstance(error, LastingError) or type(error).__name__ == "OfflineModeIsEnabled":
        return False
    status = _status(error)
    if status is not None:
        return status in PASSING_STATUS
    if isinstance(error, LASTING_OS):
        return False
    if isinstance(error, OSError | TimeoutError):
        return not LASTING_S3.search(str(error))
    return any(kind.__name__ in PASSING_TYPES for kind in type(error).__mro__)


def wait_seconds(error: BaseException, attempt: int) -> float:
    """What the server asked for and a little more, or else an exponential wait; random, so that replicas spread out."""
    asked = _retry_after(error)
    if asked is not None:
        return asked + random.uniform(0, 1 + asked / 10) * min(1.0, asked + 0.1)
    return min(FIRST_WAIT * 2 ** (attempt - 1), LONGEST_WAIT) * random.uniform(0.5, 1.0)


def lasting(error: BaseException) -> LastingError:
    text = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
    return LastingError(text or type(error).__name__)


def _status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None) or getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _retry_after(error: BaseException) -> float | None:
    """Seconds of a Retry-After header, given as a number or a date; or of the Hub's RateLimit header."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None) or {}
    limit = re.search(r"r=0\b.*?\bt=(\d+)", headers.get("ratelimit", "") or "")
    said = (headers.get("Retry-After") or "").strip() or (limit[1] if limit else "")
    if not said:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except ValueError:
        return None
