"""Tell someone how a run ended: a JSON object by POST to a webhook, or on the standard input of a command.

What fails here is said in a line and never changes how the run ended. The webhook's address is a secret: nothing prints it.
"""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from levit_batch.errors import LastingError
from levit_batch.job.config import NotifyConfig
from levit_batch.storage.redact import redact
from levit_batch.storage.retry import retry

TRIES = 4
LONGEST = 60.0  # seconds that all of them may take
HEADERS = {"Content-Type": "application/json", "User-Agent": "levit-batch"}
SECRET_LENGTH = 8  # an argument of so many characters may be a secret: nothing prints it


def notify(config: NotifyConfig, events: set[str], payload: dict[str, Any], say: Callable[[str], None]) -> None:
    """Send `payload`, secrets taken out, when one of `events` is among `config.on`; `say` gets a line for what fails."""
    if not events & set(config.on):
        return
    data = json.dumps(redact(payload) | {"events": sorted(events)}, ensure_ascii=False).encode()
    if config.webhook and (reason := post(config.webhook, data, config.timeout)):
        say(f"notify.webhook at {urlsplit(config.webhook).hostname} was not told: {reason}")
    if config.command and (reason := pipe(config.command, data, config.timeout)):
        say(f"notify.command {config.command[0]} failed: {reason}")


def post(url: str, data: bytes, timeout: float) -> str | None:
    """None when the server took it, else why it did not, after `TRIES` tries."""

    def send() -> None:
        urllib.request.urlopen(urllib.request.Request(url, data, HEADERS), timeout=timeout).close()

    try:
        retry(send, TRIES, time.monotonic() + LONGEST)
        return None
    except Exception as e:  # refused, timed out, no such host; not a URL
        last = e.__cause__ if isinstance(e, LastingError) else e
        if isinstance(last, urllib.error.HTTPError):
            return f"it answers {last.code}"
        return type(last).__name__ if url in str(last) else redact(str(getattr(last, "reason", last)))


def pipe(command: list[str], data: bytes, timeout: float) -> str | None:
    """None when the command ended with 0, else why it did not."""
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        return f"it took longer than {timeout:g} s"
    except OSError as e:
        return str(e)
    if done.returncode == 0:
        return None
    message = (done.stderr.decode(errors="replace").strip().splitlines() or [""])[-1]
    for argument in filter(lambda text: len(text) >= SECRET_LENGTH, command[1:]):  # curl repeats its address
        message = message.replace(argument, "***")
    return f"exit code {done.returncode}" + (f": {redact(message)}" if message else "")
