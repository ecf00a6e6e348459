"""What an object store may answer in place of what was asked: busy, no, half a body, nothing at all, too late, an old listing."""

import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

WAIT, LONG = 0.2, 3.5  # seconds; pyarrow's client waits for three at most
WHILE = 5  # requests in a row that a busy store turns away
TROUBLES = ("busy", "answer 403", "denied", "body cut", "answer lost", "slow answer", "timeout", "late")
RARE = {"timeout": 10, "late": 4}  # of so many cases one is enough: the first takes seconds, the other lasts
OF_METHODS = {"body cut": ("GET",), "answer lost": ("PUT", "POST", "DELETE")}
Answer = Iterable[bytes]


def troubles(number: int, method: str) -> Iterator[str]:
    """What may come of a run's request with this number."""
    for what in TROUBLES:
        if not number % RARE.get(what, 1) and method in OF_METHODS.get(what, (method,)):
            yield what


class Trouble:
    """The `at`-th request, and for some troubles those after it, meets `what`.

    trace: method and path of each. happened: those of the first that was met.
    """

    def __init__(self, what: str = "", at: int = 0):
        self.what, self.at = what, at
        self.trace: list[tuple[str, str]] = []
        self.happened = ""
        self.young: set[str] = set()

    def __call__(self, app: Callable[..., Answer], environ: dict[str, Any], start: Callable[..., Any]) -> Answer:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        self.trace.append((method, path))
        now = len(self.trace)
        most = {"busy": self.at + WHILE, "denied": 1 << 60, "late": 1 << 60}.get(self.what, self.at + 1)
        if not self.at or not self.at <= now < most:
            return app(environ, start)
        self.happened = self.happened or f"{method} {path}"
        if self.what == "late":
            return self._late(method, path, app, environ, start)
        if self.what == "busy":
            return refuse(start, "503 Slow Down", "SlowDown")
        if self.what in ("answer 403", "denied"):
            return refuse(start, "403 Forbidden", "AccessDenied")
        if self.what in ("slow answer", "timeout"):
            time.sleep(WAIT if self.what == "slow answer" else LONG)
            return app(environ, start)
        body = b"".join(app(environ, start))
        return broken_off(body[: len(body) // 2] if self.what == "body cut" else b"")

    def _late(self, method: str, path: str, app: Any, environ: dict[str, Any], start: Any) -> Answer:
        """A listing does not show what came since."""
        if method == "PUT":
            self.young.add(path.lstrip("/").partition("/")[2])
        if method != "GET" or "list-type" not in environ["QUERY_STRING"]:
            return app(environ, start)
        said: list[Any] = []
        text = b"".join(app(environ, lambda status, headers, *_: said.extend([status, headers]))).decode()

        def shown(entry: re.Match[str]) -> str:
            return "" if entry[1] in self.young else entry[0]

        body = re.sub(r"<Contents>\s*<Key>(.*?)</Key>.*?</Contents>", shown, text, flags=re.DOTALL).encode()
        others = [(name, value) for name, value in said[1] if name.lower() != "content-length"]
        start(said[0], [*others, ("Content-Length", str(len(body)))])
        return [body]


def refuse(start: Callable[..., Any], status: str, code: str) -> Answer:
    body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [body]


def broken_off(part: bytes) -> Answer:
    """A part of the body, and the connection closed; nothing at all where that is empty."""
    if part:
        yield part
    raise ConnectionAbortedError
