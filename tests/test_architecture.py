"""Imports only point down the list of rooms in docs/architecture.md, and never in a circle."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import contseg

ROOMS = ["cli", "report", "recipes", "engine", "methods", "evaluation", "interop", "models", "losses", "scenarios", "data"]
GROUND_FLOOR = ("errors", "interruption", "plugins", "precision", "ranks")
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
        if room in (*GROUND_FLOOR, own):
            continue
        assert ROOMS.index(room) > ROOMS.index(own), f"{own} imports {module}, which stands above it"
        assert not {own, room} <= NEIGHBOURS, f"{own} imports its neighbour {module}"


def test_the_rooms_are_those_of_the_document():
    document = (ROOT.parents[1] / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert re.findall("^    ([a-z]+)  +[a-z]", document, re.MULTILINE) == ROOMS
    assert sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__") == sorted(ROOMS)


def test_no_file_imports_itself_by_way_of_others():
    """Also not within a function or for types alone: both only hide a circle."""
    try:
        TopologicalSorter(graph(ROOT)).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_a_circle_is_found(tmp_path):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "one.py").write_text("def late():\n    from contseg.room.other import name\n")
    (tmp_path / "room" / "other.py").write_text("if TYPE_CHECKING:\n    from contseg.room import one\n")
    with pytest.raises(CycleError):
        TopologicalSorter(graph(tmp_path)).prepare()


def test_no_file_is_called_utils():
    assert [path for path in ROOT.rglob("*.py") if re.search("util|helper|misc", path.stem)] == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_answers_one_question(path):
    assert len(path.read_text().splitlines()) <= 400


def test_only_the_command_line_prints():
    for path in FILES:
        if path.relative_to(ROOT).parts[0] != "cli":
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            assert not [call for call in calls if getattr(call.func, "id", "") == "print"], path


def imported(path: Path, *, names: bool = False) -> list[str]:
    """Dotted names of what a file imports; with `names`, also of what it takes from there, which may be a file."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
            found += [f"{node.module}.{alias.name}" for alias in node.names] if names else []
    return found


def graph(root: Path) -> dict[str, set[str]]:
    """The files of a package, as dotted names, and the files that each imports."""
    files = {".".join(("contseg", *path.relative_to(root).with_suffix("").parts)): path for path in root.rglob("*.py")}
    return {name: {other for other in imported(path, names=True) if other in files} for name, path in files.items()}
