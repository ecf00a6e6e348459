"""The READMEs keep what they say: every key with its default, every command and option, every column, every path and link."""

import ast
import contextlib
import importlib.util
import io
import json
import pkgutil
import re
from functools import cache

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from levit_batch.errors import ROW_ERROR_KINDS
from levit_batch.job.config import JobConfig
from levit_batch.job.row import RESERVED
from levit_batch.training.config import FinetuneConfig
from pipelines import cli
from tests.support import ROOT

FOLDERS = (".", "configs", "levit_batch", "levit_batch/sources", "levit_batch/levit", "pipelines", "tests/benchmarks")
READMES = {folder: (ROOT / folder / "README.md").read_text() for folder in FOLDERS}
README, ALL = READMES["."], "\n".join(READMES.values())
UNTOLD = "  |"  # how the line of a key without a description ends
each_readme = pytest.mark.parametrize("folder", FOLDERS)


def reference(model=JobConfig, prefix=""):
    """The configuration table, a line a key."""
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from reference(kind, f"{prefix}{name}.")
        else:
            yield f"| `{prefix}{name}` | {written(field.default)} | {(field.description or '').rstrip('.')} |"


def finetune_reference():
    """The same of a fine-tuning, without the keys of a source that labelling has."""
    shared = {f"`source.{name}`" for name in JobConfig.model_fields["source"].annotation.model_fields}
    return [line for line in reference(FinetuneConfig) if line.split()[1] not in shared]


def written(default):
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, list):
        return "`[" + ", ".join(default) + "]`"
    if isinstance(default, tuple):
        return "`[" + ", ".join(f"{value:.3g}" for value in default) + "]`"
    return f"`{json.dumps(default).strip(chr(34))}`"


def code_blocks(text, language=""):
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def prose(text):
    """All but the code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text):
    """What a forge calls the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@cache
def options(command):
    """The options that `levit-batch COMMAND --help` names."""
    with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
        cli.main([command, "--help"])
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", out.getvalue()))


def commands(text):
    """Each command line of ours in `text`: the command, and its options."""
    for line in re.findall(r"(?:^|`|bin/)levit-batch ([a-z][^`\n]*)", text, re.MULTILINE):
        command, *rest = line.split()
        yield command, [word.strip("[]|()") for word in rest if re.match(r"\[?--?[a-z]", word)]


def test_the_configuration_tables_are_those_of_the_code():
    """A key that the code does not describe has its meaning from the README alone."""
    labelling, finetuning = READMES["configs"].split("\n## Labelling")[1].split("\n## Fine-tuning")
    for table, expected in ((labelling, list(reference())), (finetuning, finetune_reference())):
        lines = [line for line in table.splitlines() if line.startswith("| `")]
        assert [line.split()[1] for line in lines] == [key.split()[1] for key in expected]
        for line, key in zip(lines, expected, strict=True):
            assert line == key or (key.endswith(UNTOLD) and line.startswith(key.removesuffix(UNTOLD))), f"to be pasted: {key}"


def test_every_command_column_and_error_kind_is_named():
    for name in cli.COMMANDS:
        assert f"levit-batch {name} " in READMES["pipelines"], name
        assert re.search(rf"levit-batch {name} |\b{name}\b", README.split("## Commands")[1].split("\n## ")[0]), name
    for name in (*RESERVED, *ROW_ERROR_KINDS):
        assert f"`{name}`" in READMES["levit_batch"], name


@each_readme
def test_every_command_and_option_it_names_exists(folder):
    for command, named in commands(READMES[folder]):
        if command != "COMMAND":
            assert command in cli.COMMANDS, command
            assert set(named) <= options(command), (command, set(named) - options(command))


@each_readme
def test_every_key_it_sets_exists(folder):
    keys = {line.split("`")[1] for line in (*reference(), *reference(FinetuneConfig))}
    assert set(re.findall(r"--set ([a-z_.]+)=", READMES[folder])) <= keys
    sections = "source|model|preprocess|predict|output|compute|drift|notify|validation|teacher|augment|train"
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)(?:`|:|=)", READMES[folder]))
    assert named <= keys


def test_the_two_commands_are_one_line_each():
    assert len(re.findall(r"^python3 -m venv .*levit-batch run configs/demo.yaml$", README, re.MULTILINE)) == 1
    assert len(re.findall(r"^python3 -m venv .*-m pytest -n 2 --dist loadfile$", README, re.MULTILINE)) == 1


def test_the_first_readme_can_be_read_to_the_end():
    assert len(README.splitlines()) <= 150 and len(README.encode()) <= 10_240


@each_readme
def test_every_file_and_module_it_names_is_there(folder):
    text = READMES[folder]
    for path in set(re.findall(r"(?<![\w/])((?:configs|pipelines|levit_batch|tests)/[\w/.-]*)(?!\S*<)", text)):
        assert (ROOT / path.rstrip(".")).exists(), path
    for module in set(re.findall(r"python -m (tests\.[\w.]+)", text)):
        assert importlib.util.find_spec(module), module
    for name in set(re.findall(r"`(levit_batch(?:\.\w+)+)", text)):
        assert pkgutil.resolve_name(name), name


@each_readme
def test_every_link_leads_somewhere(folder):
    for link in re.findall(r"\]\(([^)]+)\)", prose(READMES[folder])):
        path, _, anchor = link.partition("#")
        target = (ROOT / folder / path).resolve()
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text()), link
        assert target.is_relative_to(ROOT), link


def test_the_first_readme_leads_to_all_others():
    assert set(FOLDERS[1:]) <= {link.removesuffix("/README.md") for link in re.findall(r"\]\(([^)#]+)\)", README)}


def test_the_python_in_them_parses():
    for block in code_blocks(ALL, "python"):
        ast.parse(block)
