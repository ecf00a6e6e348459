"""The README keeps what it says: every option with its default, every command, every column."""

import json
import re

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from levit_batch.errors import ROW_ERROR_KINDS
from levit_batch.job.config import JobConfig
from levit_batch.job.row import RESERVED
from pipelines import cli
from tests.support import ROOT

README = (ROOT / "README.md").read_text()


def reference(model=JobConfig, prefix=""):
    """The configuration table of the README, a line an option."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from reference(kind, f"{prefix}{name}.")
        else:
            yield f"| `{prefix}{name}` | {written(field.default)} | {field.description.rstrip('.')} |"


def written(default):
    if default is PydanticUndefined:
        return "required"
    return "`[" + ", ".join(default) + "]`" if isinstance(default, list) else f"`{json.dumps(default).strip(chr(34))}`"


def test_the_configuration_table_is_that_of_the_code():
    """What is missing or outdated is printed, to be pasted."""
    section = README.split("## Configuration")[1].split("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("| `")] == list(reference())


def test_every_command_column_and_error_kind_is_named():
    for name in cli.COMMANDS:
        assert f"levit-batch {name}" in README or f"`{name}`" in README, name
    for name in (*RESERVED, *ROW_ERROR_KINDS):
        assert f"`{name}`" in README, name


def test_the_two_commands_are_one_line_each():
    assert len(re.findall(r"^python3 -m venv .*levit-batch run configs/demo.yaml$", README, re.MULTILINE)) == 1
    assert len(re.findall(r"^python3 -m venv .*-m pytest$", README, re.MULTILINE)) == 1


def test_every_file_the_readme_names_is_there():
    for path in set(re.findall(r"`?((?:configs|pipelines|levit_batch|tests)/[\w/.-]+\.(?:yaml|py|md))", README)):
        assert (ROOT / path).is_file(), path
