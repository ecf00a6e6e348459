"""The token that Ray itself has put into this user's home, for a head that `ray start --head` has started on this machine.

Ray makes one the first time that it is started somehow, heads ask for it from then on, and no client sends it by itself.
"""

import os
import socket
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import urlsplit


def own_token(address: str) -> str | None:
    """The token for the dashboard at `address`, unless that is on another machine, which may be anybody's, or RAY_AUTH_MODE says
    what to do."""
    if "RAY_AUTH_MODE" in os.environ or not _is_here(urlsplit(address).hostname):
        return None
    with suppress(OSError):
        return (Path.home() / ".ray" / "auth_token").read_text().strip() or None
    return None


def _is_here(host: str | None) -> bool:
    """Whether the name `host` leads to this machine: only then can a socket be bound to its address."""
    with suppress(OSError):
        family, kind, protocol, _, (ip, *_) = socket.getaddrinfo(host or "", None, type=socket.SOCK_STREAM)[0]
        with closing(socket.socket(family, kind, protocol)) as one:
            one.bind((ip, 0))
            return True
    return False
