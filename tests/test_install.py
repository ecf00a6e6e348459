"""What is installed: few packages, of versions that were tried; each file that names versions says the same."""

import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.support import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = "levit-batch"


def requirements(*extras: str) -> dict[str, Requirement]:
    """The packages that the core and `extras` name, ours left out."""
    optional = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    return {found.name: found for found in map(Requirement, lines) if found.name != OURS}


def constraints(name: str) -> dict[str, SpecifierSet]:
    lines = [line for line in (ROOT / "constraints" / name).read_text().splitlines() if line and not line.startswith("#")]
    return {found.name: found.specifier for found in map(Requirement, lines)}


TEST = requirements("cluster", "openvino", "onnx", "test")


def test_the_lowest_versions_are_those_that_the_metadata_allows():
    lowest = constraints("lowest.txt")
    assert set(lowest) == set(TEST)
    for name, found in TEST.items():
        floor, pin = re.fullmatch(r">=([\d.]+)", str(found.specifier)), re.fullmatch(r"==([\d.]+)", str(lowest[name]))
        assert floor and pin and re.fullmatch(re.escape(floor[1]) + r"(\.0)*", pin[1]), (name, pin, floor)


def test_the_tried_versions_are_those_that_the_two_commands_install():
    tried = constraints("tried.txt")
    assert set(tried) == set(TEST)
    assert tried.pop("torch") == SpecifierSet(">=2.9,<2.14")
    for name, pin in tried.items():
        version = re.fullmatch(r"==([\d.]+)", str(pin))
        assert version and version[1] in TEST[name].specifier, name
    commands = re.findall(r"^python3 -m venv .*pip install (.+?) &&", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands == ["-c constraints/tried.txt -e .", "-c constraints/tried.txt -e '.[test]'"]


def test_the_core_is_light():
    """Ray's dashboard and what goes with it, 35 packages, are for clusters alone; torchvision is for nobody."""
    assert requirements()["ray"].extras == {"data"}
    assert requirements("cluster")["ray"].extras == {"default"}
    assert not any("torchvision" in text for text in [*TEST, *constraints("tried.txt")])


def test_windows_is_refused_in_a_line():
    code = "import sys; sys.platform = 'win32'; import pipelines.cli"
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.startswith("levit-batch: ") and ended.stderr.count("\n") == 1
    assert "WSL" in ended.stderr


@pytest.mark.parametrize("command", ["status", "submit"])
def test_commands_for_clusters_name_the_extra_that_is_missing(command, tmp_path, python_without):
    python = python_without("aiohttp")
    more = ["configs/demo.yaml"] if command == "submit" else []
    line = [python, "-m", "pipelines.cli", command, *more, "--address", "http://127.0.0.1:1"]
    ended = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1
    assert "pip install 'levit-batch[cluster]'" in ended.stderr
