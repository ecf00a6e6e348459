"""YAML, `--set` and environment variables in; a frozen configuration, or one clear ConfigError, out."""

import difflib
import os
import re
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from levit_batch.errors import ConfigError
from levit_batch.job.config import JobConfig, Section

ConfigT = TypeVar("ConfigT", bound=BaseModel)
# Which command reads the configurations of a recipe, and the sections that no other recipe has.
COMMANDS = {
    "label": ("run", {"preprocess", "predict", "drift", "notify"}),
    "finetune": ("finetune", {"validation", "teacher", "augment", "train"}),
}
VARIABLE = re.compile(r"\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}")


class Loader(yaml.SafeLoader):
    """YAML as people read it: `on` and `off` are words (`notify.on` is a key), only `true` and `false` are truth."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))


def load_config(path: str, overrides: list[str] | tuple[str, ...] = (), schema: type[ConfigT] = JobConfig) -> ConfigT:
    """Read the YAML file `path`, apply each `a.b=value` of `overrides`, and validate it as `schema`.

    `${VAR}` and `${VAR:-default}` are expanded in values, before the values are typed.
    Raises ConfigError naming the file, the key and the nearest known key or allowed value.
    """
    values = read_yaml(path)
    _check_recipe(values, path, schema)
    for override in overrides:
        apply_override(values, override, schema)
    return validate(values, path, schema)


def _check_recipe(values: dict[str, Any], path: str, schema: type[BaseModel]) -> None:
    """Refuse a configuration of another recipe as a whole: its keys, told one by one, would say little."""
    mine = schema.model_fields["pipeline"].default if "pipeline" in schema.model_fields else None
    for recipe, (command, sections) in COMMANDS.items():
        written = values.get("pipeline", recipe if sections & values.keys() else mine)
        if mine in COMMANDS and mine != recipe == written:
            raise ConfigError(
                f"configuration {path}: this is a configuration for `levit-batch {command}`, not for "
                f"`levit-batch {COMMANDS[mine][0]}`"
            )


def read_yaml(path: str) -> dict[str, Any]:
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"configuration {path}: no such file in {Path.cwd()}; name an existing YAML file")
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), Loader)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(f"configuration {path}{where}: not valid YAML: {getattr(e, 'problem', e)}") from None
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"configuration {path}: cannot be read: {e}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"configuration {path}: must be a mapping of sections (source, model, output, ...)")
    return values


def apply_override(values: dict[str, Any], override: str, schema: type[BaseModel]) -> None:
    """Set `a.b=value` in place; the value is read as YAML, so that null, numbers and lists work.

    A value of an option that only holds text stays text, so that `model.revision=1e3` is a revision.
    """
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {override}: write it as section.key=value")
    try:
        value = text if _text_only(schema, parts) else yaml.safe_load(text)
    except yaml.YAMLError:
        value = text
    section = values
    for part in parts[:-1]:
        if not isinstance(section.get(part), dict):
            section[part] = {}
        section = section[part]
    section[parts[-1]] = None if text == "null" else value


def _text_only(schema: type[BaseModel], parts: list[str]) -> bool:
    kind: Any = schema
    for part in parts:
        fields = getattr(kind, "model_fields", {})
        if part not in fields:
            return False
        kind = fields[part].annotation
    return kind is str or set(get_args(kind)) == {str, type(None)}


def expand(value: Any, where: str) -> Any:
    """Replace `${VAR}` and `${VAR:-default}` in every string below `value`."""
    if isinstance(value, dict):
        return {key: expand(item, f"{where}.{key}" if where else str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [expand(item, where) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value

    def replace(match: re.Match[str]) -> str:
        text = os.environ.get(match["name"]) or match["default"]
        if text is None:
            raise ConfigError(f"{where}: the environment variable {match['name']} is not set; "
                              f"set it, or write ${{{match['name']}:-default}}")  # fmt: skip
        return text

    expanded = VARIABLE.sub(replace, value)
    # An expanded number is a number: `replicas: ${REPLICAS:-4}`.
    return yaml.safe_load(expanded) if VARIABLE.fullmatch(value) and expanded.strip() else expanded


def validate(values: dict[str, Any], path: str, schema: type[ConfigT] = JobConfig) -> ConfigT:
    try:
        return schema.model_validate(expand(values, ""))
    except ConfigError as e:
        raise ConfigError(f"configuration {path}: {e}") from None
    except ValidationError as e:
        raise ConfigError(f"configuration {path}: " + "; ".join(_words(e, schema))) from None


def _words(error: ValidationError, schema: type[BaseModel]) -> list[str]:
    """One phrase for each mistake; the branches of a union make one phrase together."""
    phrases: dict[str, str] = {}
    for item in error.errors(include_url=False):
        location = [str(part) for part in item["loc"]]
        path, known = _known_part(location, schema)
        key = ".".join(path)
        if item["type"] == "extra_forbidden":
            near = difflib.get_close_matches(path[-1], known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
            phrases.setdefault(key, f"unknown key {key}: {hint}")
        elif item["type"] == "missing":
            phrases.setdefault(key, f"{key} is required")
        elif item["type"] == "value_error" and isinstance(item["input"], dict):  # of keys that do not go together
            message = item["msg"].removeprefix("Value error, ")
            phrases[key] = f"{key}: {message}" if key else message
        else:
            message = item["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            message = _mapping(item["ctx"]["class_name"]) if item["type"] == "model_type" else message
            before = phrases.get(key)
            phrases[key] = f"{before} or {message}" if before else f"{key}: {item['input']!r} should be {message}"
    return list(phrases.values())


def _mapping(section: str) -> str:
    """What is written in the place of a section, by the name of its class."""
    kind = next((kind for kind in Section.__subclasses__() if kind.__name__ == section), Section)
    return f"a mapping of {', '.join([*list(kind.model_fields)[:3], *(['...'] if len(kind.model_fields) > 3 else [])])}"


def _known_part(location: list[str], schema: type[BaseModel]) -> tuple[list[str], list[str]]:
    """The part of an error's location that is keys of the YAML (not branches of a union), and the keys known there."""
    kind: Any = schema
    path, known = [], list(schema.model_fields)
    for part in location:
        fields = getattr(kind, "model_fields", None)
        if fields is None:
            break
        path.append(part)
        known = list(fields)
        kind = fields[part].annotation if part in fields else None
    return path or location, known
