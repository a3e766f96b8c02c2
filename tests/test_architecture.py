"""Imports only point down the house plan."""

import ast
from pathlib import Path

import pytest

import contseg

ROOMS = ["cli", "report", "recipes", "engine", "methods", "evaluation", "interop", "models", "losses", "scenarios", "data"]
NEIGHBOURS = {"methods", "evaluation", "interop"}
ROOT = Path(contseg.__file__).parent
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_only_point_down(path):
    own = path.relative_to(ROOT).parts[0]
    for module in imported(path):
        if not module.startswith("contseg."):
            continue
        room = module.split(".")[1]
        if room in ("errors", "interruption", own):
            continue
        assert ROOMS.index(room) > ROOMS.index(own), f"{own} imports {module}, which stands above it"
        assert not {own, room} <= NEIGHBOURS, f"{own} imports its neighbour {module}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_answers_one_question(path):
    assert len(path.read_text().splitlines()) <= 400


def test_only_the_command_line_prints():
    for path in FILES:
        if path.relative_to(ROOT).parts[0] != "cli":
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            assert not [call for call in calls if getattr(call.func, "id", "") == "print"], path


def imported(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found
