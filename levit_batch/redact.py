"""Secrets taken out of everything that is recorded or printed: tokens, keys, signed URLs, passwords in URLs."""

import re
from typing import Any

SECRET_KEY = re.compile(r"token|secret|password|api_?key|credential|webhook", re.IGNORECASE)
PATTERNS = (
    (re.compile(r"(\w+://)[^/@\s]+@"), r"\1***@"),
    (re.compile(r"(\w+://[^\s?\"']+)\?[^\s\"']+"), r"\1?***"),
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), "hf_***"),
    (re.compile(r"\b(AKIA|ASIA)[A-Z0-9]{12,}"), r"\1***"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), r"\1 ***"),
)


def redact(value: Any) -> Any:
    """The same JSON value without secrets: strings are cleaned, values under secret-sounding keys are masked."""
    if isinstance(value, dict):
        return {
            k: "***" if v and isinstance(v, str) and SECRET_KEY.search(str(k)) else redact(v) for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    if isinstance(value, str):
        for pattern, clean in PATTERNS:
            value = pattern.sub(clean, value)
    return value
