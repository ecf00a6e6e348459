"""End the process when one image holds it up for too long."""

import faulthandler
import math
import sys
import time


class Watchdog:
    """Ends the process, with a traceback on stderr, when nobody pats it for `seconds` (up to a tenth longer).

    A decoder that hangs does so in C code, which no exception reaches and which may hold Python's lock; faulthandler's
    timer thread needs neither. Starting that timer takes 20 microseconds, so `pat` starts it anew only after a tenth of
    the time. There is one such timer in a process. Infinite `seconds` mean no timer.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.armed = 0.0

    def __enter__(self) -> "Watchdog":
        self._arm()
        return self

    def __exit__(self, *exc_info) -> None:
        if not math.isinf(self.seconds):
            faulthandler.cancel_dump_traceback_later()

    def pat(self) -> None:
        """Say that a new image begins."""
        if time.monotonic() - self.armed > self.seconds / 10:
            self._arm()

    def _arm(self) -> None:
        if math.isinf(self.seconds):
            return
        faulthandler.dump_traceback_later(self.seconds * 1.1, exit=True, file=sys.__stderr__ or sys.stderr)
        self.armed = time.monotonic()
