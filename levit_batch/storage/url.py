"""What an address says: its scheme, its options, and how it may be shown."""

import re

from levit_batch.storage.redact import user_length

SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
OPTIONS = re.compile(
    r"\?(region|endpoint_override|scheme|anonymous|retry_limit_seconds|project_id|credential_kind|enable_tls|tenant_id|client_id|"
    r"blob_storage_authority|dfs_storage_authority)="
)


def scheme(url: str) -> str:
    """The URL's scheme, or "" for a local path."""
    kind, mark, _ = url.partition("://")
    return kind.lower() if mark and SCHEME.fullmatch(kind) else ""


def shown(url: str) -> str:
    """A URL as it may be printed or recorded: no password, no query (which may be a signature)."""
    kind = scheme(url)
    if not kind:
        return url
    rest = url.split("://", 1)[1]
    rest = rest[user_length(kind, rest) :]
    bare = rest.partition("?")[0].partition("#")[0] if kind in ("http", "https") else split_options(rest)[0]
    return f"{kind}://{bare}"


def printable(name: bytes) -> str:
    r"""A file's name as text, `\xff` for a byte that is not UTF-8. No file is found by such a name."""
    return name.decode("utf-8", "backslashreplace")


def _split_options(url: str) -> tuple[str, str]:
    """A bucket's address and its `?region=...`; a question mark that is part of a name stays there."""
    options = OPTIONS.search(url)
    return (url[: options.start()], url[options.start() :]) if options else (url, "")


def split_options(url: str) -> tuple[str, str]:
    """A bucket's address and its `?region=...`; a question mark that is part of a name stays there."""
    options = OPTIONS.search(url)
    return (url[: options.start()], url[options.start() :]) if options else (url, "")
