"""Imports only point down the list of rooms in docs/architecture.md, and never in a circle."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

import contseg

ROOMS = [
    "cli", "sweeps", "extension", "report", "dryrun", "recipes", "engine", "methods", "evaluation", "interop",
    "models", "losses", "scenarios", "data",
]  # fmt: skip
NEIGHBOURS = ({"methods", "evaluation", "interop"}, {"report", "dryrun"})
AT_TOP, IN_FUNCTION, FOR_TYPES = "at the top", "in a function", "for types"
ROOT = Path(contseg.__file__).parent
DOCS = ROOT.parents[1] / "docs"
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
GROUND = {path.stem for path in ROOT.glob("*.py")} - {"__init__", "__main__"}
"""Files next to the rooms, which every room may import."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_only_point_down(path):
    own = path.relative_to(ROOT).parts[0]
    for module in imports(path):
        if not module.startswith("contseg."):
            continue
        room = module.split(".")[1]
        if room == own or room in GROUND or not (ROOT / room).is_dir():
            continue
        assert ROOMS.index(room) > ROOMS.index(own), f"{own} imports {module}, a room above it"
        assert not any({own, room} <= side for side in NEIGHBOURS), f"{own} imports its neighbour {module}"


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_floor_imports_no_room(name):
    """But in functions: a plugin is looked up in the rooms when it is used."""
    rooms = {module.split(".")[1] for module, where in imports(ROOT / f"{name}.py").items() if module.startswith("contseg.")
             and where != IN_FUNCTION}  # fmt: skip
    assert rooms <= GROUND | {"__version__"}


def test_the_rooms_are_those_of_the_document():
    document = (DOCS / "architecture.md").read_text(encoding="utf-8")
    assert re.findall("^    ([a-z]+)  +[a-z]", document, re.MULTILINE) == ROOMS
    assert sorted(path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__") == sorted(ROOMS)


@pytest.mark.parametrize("path", [ROOT.parents[1] / "README.md", *sorted(DOCS.rglob("*.md"))], ids=lambda path: path.name)
def test_documents_name_only_files_that_are_there(path):
    """No document names a room or a file that has moved."""
    rooms = "|".join(
        room for room in ROOMS if room not in ("data", "evaluation", "report")
    )  # keys of a recipe, and report.html
    names = re.findall(rf"\bcontseg\.([a-z_]+(?:\.[a-z_]+)+)|`((?:{rooms})(?:\.[a-z_]+)+)", path.read_text(encoding="utf-8"))
    assert [name for name in sorted({one or other for one, other in names}) if not is_there(name)] == []


def is_there(name: str) -> bool:
    """Whether a dotted name is a room, a file, or something in a file of the package."""
    place = ROOT.joinpath(*name.split("."))
    if place.is_dir() or place.with_suffix(".py").is_file():
        return True
    file = place.parent.with_suffix(".py") if place.parent != ROOT else ROOT / "__init__.py"
    return file.is_file() and re.search(rf"\b{place.name}\b", file.read_text(encoding="utf-8")) is not None


def test_no_file_imports_itself_by_way_of_others():
    """Imports in functions and for types alone count too: both only hide a circle."""
    files = graph(ROOT)
    try:
        TopologicalSorter(files).prepare()
    except CycleError as error:
        circle = list(reversed(error.args[1]))  # from importing to imported
        pytest.fail(" -> ".join([circle[0], *(f"{other} ({files[one][other]})" for one, other in pairwise(circle))]))


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("from contseg.room.other import name", AT_TOP),
        ("from contseg.room import other", AT_TOP),
        ("import contseg.room.other", AT_TOP),
        ("from . import other", AT_TOP),
        ("from .other import name", AT_TOP),
        ("def late():\n    from contseg.room.other import name", IN_FUNCTION),
        ("if TYPE_CHECKING:\n    from contseg.room.other import name", FOR_TYPES),
    ],
)
def test_a_circle_is_found_wherever_its_imports_are(tmp_path, text, where):
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "__init__.py").touch()
    (tmp_path / "room" / "one.py").write_text(text + "\n")
    (tmp_path / "room" / "other.py").write_text("from contseg.room.one import late\n")
    files = graph(tmp_path)
    assert files["contseg.room.one"]["contseg.room.other"] == where
    with pytest.raises(CycleError):
        TopologicalSorter(files).prepare()


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


def imports(path: Path, root: Path = ROOT) -> dict[str, str]:
    """Dotted names of what a file imports, and of what it takes from there, which may be a file; each with its place."""
    package = ["contseg", *path.relative_to(root).parent.parts]
    found: dict[str, str] = {}

    def add(node: ast.AST, where: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.update(dict.fromkeys((alias.name for alias in child.names), where))
            elif isinstance(child, ast.ImportFrom):
                base = package[: len(package) - child.level + 1] if child.level else []
                module = ".".join([*base, *([child.module] if child.module else [])])
                found.update(dict.fromkeys([module, *(f"{module}.{alias.name}" for alias in child.names)], where))
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                add(child, IN_FUNCTION)
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                add(child, FOR_TYPES)
            else:
                add(child, where)

    add(ast.parse(path.read_text(encoding="utf-8")), AT_TOP)
    return found


def graph(root: Path) -> dict[str, dict[str, str]]:
    """The files of a package, as dotted names, and the files that each imports, with the place of the import.

    The package itself is left out: it exports names of all rooms, and loads them when they are used.
    """
    files = {
        ".".join(("contseg", *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in root.rglob("*.py")
        if path != root / "__init__.py"
    }
    return {
        name: {other: where for other, where in imports(path, root).items() if other in files and other != name}
        for name, path in files.items()
    }
