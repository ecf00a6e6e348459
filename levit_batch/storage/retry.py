"""Try again what failed for a reason that passes: throttling, server errors, broken connections."""

import contextlib
import logging
import math
import random
import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from levit_batch.errors import LastingError

ResultT = TypeVar("ResultT")

log = logging.getLogger(__name__)

ATTEMPTS = 6
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds; doubled at each attempt, with jitter
LONGEST_RETRY_AFTER = 300.0  # a server that wants more than this has failed
PASSING_STATUS = {408, 425, 429, *range(500, 600)}
# Of httpx, aiohttp and urllib3, by name: none of them need be here.
PASSING_TYPES = ("TransportError", "TimeoutException", "ClientError", "RemoteProtocolError", "HTTPError")
LASTING_OS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
LASTING_S3 = re.compile(
    r"AWS Error (ACCESS_DENIED|NO_SUCH|INVALID|RESOURCE_NOT_FOUND|SIGNATURE|UNRECOGNIZED_CLIENT)|HTTP status 40[0134]\b"
)


class Patience:
    """How often one thing is attempted, and until when (`deadline`, of the monotonic clock)."""

    def __init__(self, attempts: int = ATTEMPTS, deadline: float = math.inf):
        self.attempts, self.deadline, self.failures = attempts, deadline, 0

    def after(self, error: Exception, what: str = "") -> None:
        """Returns when it is time for the next attempt, honouring Retry-After; `what` failed goes to the log.

        Raises `error` itself when it will not pass, and LastingError from it after the last attempt.
        """
        if not passing(error):
            raise error
        self.failures += 1
        wait = wait_seconds(error, self.failures)
        if self.failures >= self.attempts or wait > LONGEST_RETRY_AFTER or time.monotonic() + wait > self.deadline:
            raise lasting(error) from error
        if what:
            log.warning("%s: %s; trying again in %.1f s", what, error, wait)
        time.sleep(wait)


def retry(call: Callable[[], ResultT], attempts: int = ATTEMPTS, deadline: float = math.inf) -> ResultT:
    """The result of `call`, which is called again when it fails for a reason that passes. Raises as `Patience` does."""
    patience = Patience(attempts, deadline)
    while True:
        try:
            return call()
        except Exception as e:
            patience.after(e)


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
    asked = (headers.get("Retry-After") or "").strip() or (limit[1] if limit else "")
    with contextlib.suppress(ValueError):
        return max(0.0, float(asked))
    with contextlib.suppress(ValueError):
        return max(0.0, parsedate_to_datetime(asked).timestamp() - time.time())
    return None
