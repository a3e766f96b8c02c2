"""Commands and examples of the README and the documentation work."""

import re
import shlex
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from typer.main import get_command

import contseg
from contseg.cli.main import app
from contseg.data.open import DATASETS
from contseg.methods.registry import METHODS
from contseg.recipes.read import read_recipe, recipe_names
from tests.conftest import TINY

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
WRITTEN = [path for path in sorted((ROOT / "docs").glob("*.md")) if not path.stem.endswith("-results")]  # by hand
PAGES = "\n".join([README, *(path.read_text(encoding="utf-8") for path in WRITTEN)])


def commands(pattern: str) -> list[str]:
    """Commands of the README and the documentation, each once, with continued lines, without comments and pipes."""
    found = re.findall(rf"^    (contseg {pattern}(?:[^#\n\\]|\\\n)*)", PAGES, re.MULTILINE)
    return list(dict.fromkeys(line.split(" | ")[0].replace("\\\n", "").strip() for line in found))


@pytest.fixture
def files_of_the_documents(tmp_path, monkeypatch, forgotten):
    """The files whose content the documents show, in the current folder."""
    for name, content in re.findall(r'```\w+ title="(\S+)"\n(.*?)```', PAGES, re.DOTALL):
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("gentle", None)


def test_every_public_name_is_there():
    for name in contseg.__all__:
        assert getattr(contseg, name) is not None


@pytest.mark.usefixtures("files_of_the_documents")
@pytest.mark.parametrize("line", commands("(?:train|plan) +[^-#\\n ]"))
def test_commands_of_the_documents_name_real_recipes_and_keys(line):
    name, *words = shlex.split(line)[2:]
    plugins = [f"plugins=[{file}]" for option, file in pairwise(words) if option == "--plugin"]
    recipe = read_recipe(name, [*plugins, *(word for word in words if "=" in word)])
    assert recipe.name in recipe_names() or name.endswith(".yaml")


@pytest.mark.usefixtures("files_of_the_documents")
@pytest.mark.parametrize("line", commands("[a-z]"))
def test_commands_of_the_documents_are_understood(line):
    command, words = get_command(app), shlex.split(line)[1:]
    while hasattr(command, "get_command") and not words[0].startswith("-"):  # a group and one of its commands
        command, words = command.get_command(None, words[0]), words[1:]
        assert command is not None
    with suppress(typer.Exit):  # --help
        command.make_context("contseg", words)  # parses, does nothing


def test_the_readme_is_an_introduction():
    assert README[: README.index("## From Python")].count("\n") <= 60
    assert len(re.findall(r"^!\[", README, re.MULTILINE)) == 1


def test_table_of_what_works_names_every_method_and_dataset():
    works = (ROOT / "docs" / "what-works.md").read_text(encoding="utf-8")
    for name in [*METHODS, *DATASETS]:
        assert f"`{name}`" in works


def test_a_loop_of_your_own_runs(monkeypatch, capsys):
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "for step in scenario" in block)
    assert len(code[code.index("for step") :].splitlines()) <= 23
    small = {
        '"digits"': '"digits", train=24, test=4, size=48',
        "range(10)": "range(1)",
        "batch=16, crop=64": "batch=4, crop=48",
    }
    for found, change in {**small, '"width": 16})': '"width": 4}, head={"width": 8})', 'split="5-1"': 'split="5-5"'}.items():
        assert found in code
        code = code.replace(found, change)
    exec(compile(code, "README.md", "exec"), {})
    assert re.fullmatch(r"step 0: [0-9.]+% of .*\nstep 1: [0-9.]+% of .*\n", capsys.readouterr().out)


@pytest.mark.slow
def test_python_example_runs(tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("contseg.recipes.read.read_recipe", lambda name, given=(): read_recipe(name, [*given, *TINY]))
    exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    assert (tmp_path / "runs" / "my-mib" / "report.html").is_file()
