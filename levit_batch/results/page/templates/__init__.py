"""The templates of page, card and diff, and what all of them show in one way."""

import base64
from collections.abc import Callable
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader, Undefined

from levit_batch.results.page import formats, plots
from levit_batch.storage.redact import public, public_path, redact

PATHS = (
    ("source", "path"), ("source", "root"), ("source", "class_names"), ("model", "checkpoint"), ("output", "path"),
)  # fmt: skip


def environment() -> Environment:
    """Templates with every value escaped and the number formats as filters. What an older record lacks is left blank."""
    made = Environment(
        loader=PackageLoader("levit_batch.results.page"), autoescape=True, undefined=ChainableUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    for name in ("count", "percent", "figure", "seconds", "size", "when"):
        made.filters[name] = _lenient(getattr(formats, name))
    made.filters["public"] = public
    made.filters["short"] = plots.short
    made.filters["data_uri"] = lambda data: "data:image/jpeg;base64," + base64.b64encode(data).decode()
    return made


def _lenient(show: Callable[[Any], str]) -> Callable[[Any], str]:
    return lambda value: show(None if isinstance(value, Undefined) else value)


def public_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration as a page that may be published shows it: no secrets, and of local paths only the ends."""
    shown = redact(config)
    for section, key in PATHS:
        path = shown.get(section, {}).get(key)
        if path:
            shown[section][key] = public_path(path) if isinstance(path, str) else [public_path(one) for one in path]
    return shown
