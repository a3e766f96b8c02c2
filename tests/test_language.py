"""Text that users read is plain English: no word of the list below, no line of prose over 120 characters."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from typer.main import get_command

import contseg
from contseg.cli.main import app

SOURCE = Path(contseg.__file__).parent
ROOT = SOURCE.parents[1]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
ROOMS = sorted(path.name for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file())
WIDTH = 120

BETTER = {
    r"told|tells?": "reported, listed, detected; shows",
    r"says|said": "reports, predicted",
    r"asked": "requested",
    r"soft-max\w*": "softmax",
    r"data sets?": "dataset",
    r"holds? together": "passed, is consistent",
    r"stands? (?:for|over|beside)": "is used in place of, extends, is next to",
    r"hears?": "receives",
    r"way out": "out_features",
    r"nothing reads": "has no effect",
    r"honestly": "",
    r"beside": "next to, with",
    r"classes to come": "future classes",
    r"(?:goes|go) on": "continues",
    r"says so": "reports it",
    r"looked at|looks through": "views, reads",
    r"taken for": "treated as",
    r"in parts of": "normalised by",
    r"(?-i:is none)": "must be at least 1",
    r"plays? the background": "is used as background",
    r"knows nothing of": "is independent of",
}
"""What is not written, and what is written in its place."""
UNUSUAL = re.compile(rf"\b({'|'.join(BETTER)})\b", re.IGNORECASE)
ALLOWED: dict[str, set[str]] = {
    "report": {"is none"},  # the value of a key, as in "data.test_crop was 512, is none"
    "sweeps": {"beside"},  # `Sweep.beside`
    "cli": {"beside"},
}
"""Room or document -> words that are right there."""


def unusual(text: str, place: str) -> list[str]:
    """Words of the list in a text, with what to write in their place; code between backticks is no text."""
    found = UNUSUAL.findall(re.sub(r"`[^`]*`", "", " ".join(text.split())))
    return [f"{word}: {better}" for word in found for better in [better_than(word)] if word not in ALLOWED.get(place, set())]


def better_than(word: str) -> str:
    """What to write in place of a word."""
    return next(better for pattern, better in BETTER.items() if re.fullmatch(pattern, word, re.IGNORECASE))


def texts(room: str) -> Iterator[tuple[str, str]]:
    """Docstrings, messages and other strings of a room, with file and line."""
    path = SOURCE / room
    for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield f"{file.relative_to(SOURCE)}:{node.lineno}", node.value


def helps(command: click.Command, name: str) -> Iterator[tuple[str, str]]:
    """The help texts of a command and of its commands."""
    yield name, command.help or ""
    for parameter in command.params:
        yield f"{name} {parameter.name}", getattr(parameter, "help", None) or ""
    for child, below in getattr(command, "commands", {}).items():
        yield from helps(below, f"{name} {child}")


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Lines of Markdown that are no code, table or HTML, with their numbers."""
    fenced = False
    for number, line in enumerate(text.splitlines(), start=1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced and not line.startswith(("    ", "|", "<", "![")):
            yield number, line


@pytest.mark.parametrize("name", [str(path.relative_to(ROOT)) for path in DOCUMENTS])
def test_documents_use_plain_words_in_short_lines(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert unusual(re.sub(r"```.*?```", "", text, flags=re.DOTALL), name) == []
    assert [f"{name}:{number}" for number, line in prose(text) if len(line) > WIDTH] == []


def test_help_uses_plain_words():
    found = {name: words for name, text in helps(get_command(app), "contseg") if (words := unusual(text, "help"))}
    assert found == {}


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_and_messages_use_plain_words(room):
    assert {place: words for place, text in texts(room) if (words := unusual(text, room))} == {}


@pytest.mark.parametrize("text", ["`told`", "a dataset is read", "the value is None"])
def test_other_words_are_allowed(text):
    assert unusual(text, "cli") == []


@pytest.mark.parametrize("text", ["Told by its names", "3 of 4 hold\ntogether", "a data set, soft-maxed"])
def test_words_of_the_list_are_found(text):
    assert unusual(text, "cli") != []
