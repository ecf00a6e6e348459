"""Secrets taken out of everything that is recorded or printed: tokens, keys, signed URLs, passwords in URLs.

`redact` and `public_path` are for what is read by people. What is opened again goes through `stored_address`, and what is
compared through `without_credentials`: both leave an address without a secret exactly as it is.
"""

import re
from typing import Any

# `command` is that of `notify`, which may have a token among its arguments.
SECRET_KEY = re.compile(r"token|secret|password|api_?key|credential|webhook|^command$", re.IGNORECASE)
PATTERNS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{30,}"), "hf_***"),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}"), r"\1***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 ***"),
)
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^\s\"']+)")
# Parameters of a URL that let somebody in, or say until when: another one tomorrow, for the same file.
SIGNATURE = re.compile(
    r"(?i)x-(amz|goog|oss|obs)-.*|.*(token|secret|passw|pwd|signature|credential|api[_-]?key|access[_-]?key).*|"
    r"googleaccessid|key-pair-id|policy|expires|auth|sig|se|st|sp|sv|sr|spr|sks|skt|ske|skv|skoid|sktid"
)
OPAQUE = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9._~%+/=-]{16,}")  # a value that may be a secret of another name
PORTLESS = {"s3", "gs", "gcs"}
AZURE = {"abfs", "abfss"}
MASKED = re.compile(r"://\*\*\*@|\?\*\*\*|hf_\*\*\*|(AKIA|ASIA)\*\*\*")
PATH_IN_TEXT = re.compile(r"(?<![\w.~/:…*-])(?:file://)?/(?:[^/\s\"'<>:;,]+/)+(?=[^/\s])")


def redact(value: Any) -> Any:
    """The same JSON value without secrets: strings are cleaned, values under secret-sounding keys are masked."""
    if isinstance(value, dict):
        return {k: _masked(v) if v and SECRET_KEY.search(str(k)) else redact(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    if isinstance(value, str):
        value = URL.sub(_clean, value)
        for pattern, clean in PATTERNS:
            value = pattern.sub(clean, value)
    return value


def _masked(value: Any) -> Any:
    return "***" if isinstance(value, str) else ["***"] if isinstance(value, list | tuple) else redact(value)


def _clean(address: re.Match[str]) -> str:
    kind, rest = address[1], address[2]
    cut = user_length(kind, rest)
    if ":" in rest[:cut]:
        cut = rest.rindex("@") + 1  # a password may hold an @ and a slash: rather too much is masked than too little
    elif not cut and _half_a_user(kind, rest):
        return f"{kind}://***"
    user, rest = "***@" if cut else "", rest[cut:]
    path, mark, query = rest.partition("?")
    if mark and query and (kind.lower() in ("http", "https") or any(map(_lets_in, query.split("&")))):
        rest = f"{path}?***"
    return f"{kind}://{user}{rest}"


def user_length(kind: str, rest: str) -> int:
    """How much of `rest`, a URL after its `kind://`, is user, password and the @ after them; a password is not always encoded."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if kind.lower() in AZURE and not authority.startswith(":"):
        return 0  # container@account; a password would stand behind a colon without a user
    if "@" in authority:
        return authority.rindex("@") + 1
    return rest.find("@") + 1 if _half_a_user(kind, rest) else 0


def _half_a_user(kind: str, rest: str) -> bool:
    """Whether the part before the first slash is no host and port, but a user and the beginning of a password."""
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    host, colon, port = authority.partition(":")
    if not colon or not host or host.startswith("["):
        return False
    return kind.lower() in PORTLESS or not re.fullmatch(r"\d{0,5}", port)


def _lets_in(parameter: str) -> bool:
    name, equals, _ = parameter.partition("=")
    return bool(equals and SIGNATURE.fullmatch(name))


def without_credentials(address: str) -> str:
    """A URL without its password and its signature, and with everything else: the same for the same data."""
    kind, mark, rest = address.partition("://")
    if not mark:
        return address
    path, mark, query = rest[user_length(kind, rest) :].partition("?")
    kept = "&".join(parameter for parameter in query.split("&") if not _lets_in(parameter))
    return f"{kind}://{path}" + (mark + kept if kept or not query else "")


def stored_address(address: str) -> str:
    """`address` as it can be opened again, unless it holds a secret: then it is masked, which `is_masked` tells."""
    values = [parameter.partition("=")[2] for parameter in address.partition("?")[2].split("&")]
    known = any(pattern.search(address) for pattern, _ in PATTERNS)
    url = "://" in address and (without_credentials(address) != address or any(map(OPAQUE.fullmatch, values)))
    return redact(address) if known or url else address


def is_masked(address: str) -> bool:
    return bool(MASKED.search(address))


def public_path(path: str) -> str:
    """A path as a page that may be published names it: of one that starts at the root or the home folder, its end."""
    bare = path.removeprefix("file://")
    if not bare.startswith(("/", "~")):
        return redact(path)
    parts = bare.rstrip("/").split("/")
    last = next((i for i, part in enumerate(parts) if re.search(r"[*?\[{]", part)), len(parts))
    return "…/" + "/".join(parts[max(last - 1, 1) :])


def public(text: str) -> str:
    """A message for such a page: without secrets, and of absolute paths only their ends."""
    return PATH_IN_TEXT.sub("…/", redact(text))
