"""The house: imports go one way, as the map in `levit_batch/__init__.py` says, and every wing says what it is for."""

import ast
from pathlib import Path

import levit_batch
from tests.support import ROOT

FILES = sorted([*(ROOT / "levit_batch").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py")])


def order() -> dict[str, int]:
    """How high each wing stands, from the line of the map that has the arrows."""
    line = next(line for line in levit_batch.__doc__.splitlines() if " < " in line)
    return {wing.strip(): height for height, level in enumerate(line.split("<")) for wing in level.split(",")}


def room(file: Path) -> list[str]:
    return list(file.relative_to(ROOT).with_suffix("").parts)


def wing(parts: list[str]) -> str:
    return "pipelines" if parts[0] == "pipelines" else parts[1] if len(parts) > 1 else ""


def imports(file: Path) -> list[list[str]]:
    """Our modules that a file imports, wherever in it; `from package import module` is both."""
    nodes = list(ast.walk(ast.parse(file.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return [name.split(".") for name in names if name.split(".")[0] in ("levit_batch", "pipelines")]


def test_imports_go_down_the_map_and_never_round():
    height = order()
    assert set(height) == {path.name.removesuffix(".py") for path in (ROOT / "levit_batch").glob("[a-z]*")} | {"pipelines"}
    wrong = [
        f"{'/'.join(room(file))} imports {'.'.join(name)}"
        for file in FILES
        for name in imports(file)
        if len(room(file)) > 2 and wing(name) not in ("", wing(room(file))) and height[wing(name)] >= height[wing(room(file))]
    ]
    assert not wrong


def test_the_recipes_do_not_go_round_either():
    arrows: dict[str, set[str]] = {}
    for file in FILES:
        here = room(file)[:2]
        if here[0] == "pipelines" and len(room(file)) > 2:
            there = {name[1] for name in imports(file) if name[0] == "pipelines" and len(name) > 2}
            arrows.setdefault(here[1], set()).update(there - {here[1]})
    while leaves := {folder for folder, uses in arrows.items() if not uses & set(arrows)}:
        arrows = {folder: uses for folder, uses in arrows.items() if folder not in leaves}
    assert not arrows, "each of these folders uses another of them"


def test_every_wing_says_what_it_is_for_and_hands_on_what_it_has():
    for face in sorted((ROOT / "levit_batch").glob("*/__init__.py")):
        said = ast.get_docstring(ast.parse(face.read_text()))
        assert said and said.splitlines()[0].endswith("."), face
        wing = getattr(__import__(f"levit_batch.{face.parent.name}"), face.parent.name)
        assert wing.__all__ and all(getattr(wing, name) for name in wing.__all__)
