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

from levit_batch.job.config import NotifyConfig
from levit_batch.storage.redact import redact

TRIES = 4
PAUSE = 1.0  # seconds before the second try; doubled before each further one
SECRET_LENGTH = 8  # an argument of so many characters may be a secret: nothing prints it
AGAIN = {408, 425, 429}  # and every 5xx: the server may take it later


def notify(
    config: NotifyConfig, events: set[str], payload: dict[str, Any], say: Callable[[str], None], pause: float = PAUSE
) -> None:
    """Send `payload`, secrets taken out, when one of `events` is among `config.on`; `say` gets a line for what fails."""
    if not events & set(config.on):
        return
    data = json.dumps(redact(payload) | {"events": sorted(events)}, ensure_ascii=False).encode()
    if config.webhook and (reason := post(config.webhook, data, config.timeout, pause)):
        say(f"notify.webhook at {urlsplit(config.webhook).hostname} was not told: {reason}")
    if config.command and (reason := pipe(config.command, data, config.timeout)):
        say(f"notify.command {config.command[0]} failed: {reason}")


def post(url: str, data: bytes, timeout: float, pause: float) -> str | None:
    """None when the server took it, else why it did not, after `TRIES` tries."""
    reason = None
    for attempt in range(TRIES):
        if attempt:
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            request = urllib.request.Request(
                url, data, {"Content-Type": "application/json", "User-Agent": "levit-batch"}
            )
            with urllib.request.urlopen(request, timeout=timeout):
                return None
        except urllib.error.HTTPError as e:
            reason = f"it answers {e.code}"
            if e.code < 500 and e.code not in AGAIN:
                return reason
        except (OSError, ValueError) as e:  # refused, timed out, no such host; not a URL
            reason = type(e).__name__ if url in str(e) else redact(str(getattr(e, "reason", e)))
    return reason


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
    said = (done.stderr.decode(errors="replace").strip().splitlines() or [""])[-1]
    for argument in filter(lambda text: len(text) >= SECRET_LENGTH, command[1:]):  # curl repeats its address
        said = said.replace(argument, "***")
    return f"exit code {done.returncode}" + (f": {redact(said)}" if said else "")
