"""The Dockerfile against the repository: no container engine is needed to see that what it copies is what there is."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

TEXT = Path("pipelines/Dockerfile").read_text()
PROJECT = tomllib.loads(Path("pyproject.toml").read_text())


def test_base_is_an_argument_and_what_is_copied_is_what_a_build_needs():
    assert re.search(r"^ARG BASE=\S+\nFROM \$\{BASE\}$", TEXT, re.MULTILINE)
    copied = [name for line in re.findall(r"^COPY (.+)$", TEXT, re.MULTILINE) for name in line.split()[:-1]]
    packages = {pattern.rstrip("*.") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    needed = {"pyproject.toml", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], *packages}
    assert needed == set(copied)


def test_torch_is_taken_from_the_project_with_its_limits():
    command = re.search(r"python -c '(.+?)'\)\"", TEXT)[1]
    said = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout.strip()
    assert said in PROJECT["project"]["dependencies"] and said.startswith("torch")


def test_shell_commands_are_shell():
    text = re.sub(r"\\\n", " ", TEXT)
    for command in re.findall(r"^RUN (.+)$", text, re.MULTILINE):
        subprocess.run(["bash", "-n", "-c", command], check=True)
