"""The Dockerfile against the repository: no container engine is needed to see that what it copies is what there is."""

import re
import subprocess
import tomllib
from pathlib import Path

TEXT = Path("pipelines/Dockerfile").read_text()
PROJECT = tomllib.loads(Path("pyproject.toml").read_text())


def test_base_is_an_argument_and_what_is_copied_is_what_a_build_needs():
    assert re.search(r"^ARG BASE=\S+\nFROM \$\{BASE\}$", TEXT, re.MULTILINE)
    copied = [name for line in re.findall(r"^COPY (.+)$", TEXT, re.MULTILINE) for name in line.split()[:-1]]
    packages = {pattern.rstrip("*.") for pattern in PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]}
    needed = {"pyproject.toml", "constraints", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"], *packages}
    assert needed == set(copied)


def test_versions_are_the_tried_ones_and_ray_is_an_argument():
    default = re.search(r"^ARG RAY_VERSION=(\S+)$", TEXT, re.MULTILINE)[1]
    tried = Path("constraints/tried.txt").read_text()
    assert f"\nray=={default}\n" in tried
    command = re.search(r"^RUN (sed .+?) \\$", TEXT, re.MULTILINE)[1].replace("> tried.txt", "")
    for version in (default, "2.55.1"):
        said = subprocess.run(["sh", "-c", command], env={"RAY_VERSION": version, "PATH": "/usr/bin:/bin"}, capture_output=True)
        assert said.stdout.decode() == tried.replace(f"ray=={default}", f"ray=={version}")
    assert all("-c tried.txt" in line for line in re.findall(r"pip install .*", TEXT))


def test_shell_commands_are_shell():
    text = re.sub(r"\\\n", " ", TEXT)
    for command in re.findall(r"^RUN (.+)$", text, re.MULTILINE):
        subprocess.run(["bash", "-n", "-c", command], check=True)
