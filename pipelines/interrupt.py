"""What a scheduler sends to end a command (SIGTERM), and a terminal that is closed (SIGHUP), end it as Ctrl-C does."""

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator

from levit_batch.errors import causes

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_errors: list[Exception] = []  # that come in place of an interruption


class Interrupted(KeyboardInterrupt):
    """Python itself would remember a KeyboardInterrupt that came through `exec`, and end by SIGINT whatever the exit code."""


def interruptible() -> None:
    """From now on each raises KeyboardInterrupt in the main thread; what this process was told to ignore (nohup) it ignores."""
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)


def uninterruptible() -> None:
    """From now on they do nothing: this process only ends."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def heard_again() -> None:
    """They mean what Python knows that they mean, whatever C code has made of them since."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


class Ended(BaseException):
    """The work of the main thread ended with `error`. No library takes it for a failure of its own, and tells of it at length."""

    def __init__(self, error: Exception):
        super().__init__(str(error))
        self.error = error


def end(error: Exception) -> None:
    """Have `Ended` raised in the main thread, where that is `interruptible`."""
    _errors.append(error)
    _thread.interrupt_main(signal.SIGTERM)


def _interrupt(number: int, frame: object) -> None:
    if _errors:
        raise Ended(_errors.pop())
    if not interrupted(sys.exc_info()[1]):  # a second one does not break off the cleaning up after the first
        raise Interrupted


def interrupted(error: BaseException | None) -> bool:
    """Whether `error` is an interruption, or came of cleaning up after one."""
    return any(isinstance(cause, KeyboardInterrupt) for cause in causes(error))


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """An interruption inside is one at its end. Ray loses what breaks off its start or its end, or aborts the process.

    A second Ctrl-C does not wait. Afterwards the signals mean what they meant before.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []

    def note(number: int, frame: object) -> None:
        if number == signal.SIGINT and came:
            raise KeyboardInterrupt
        came.append(number)

    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, *SIGNALS)}
    for number, handler in kept.items():
        if callable(handler):  # neither ignored nor the system's
            signal.signal(number, note)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
        if came:
            raise Interrupted
