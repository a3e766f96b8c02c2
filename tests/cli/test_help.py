"""The help of every command: what it does, and one example, in 80 columns; and fast."""

import shlex
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from contseg.cli.main import app
from contseg.recipes.read import recipe_names

VERBS = {
    "Add", "Check", "Compare", "Convert", "Cut", "Evaluate", "Inspect", "List", "Merge", "Print", "Read", "Remove",
    "Search", "Segment", "Train", "Write",
}  # fmt: skip
HEAVY = {"torch", "numpy", "matplotlib", "lightning_fabric"}


def commands_below(command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands_below(inner, (*words, name))


COMMANDS = dict(commands_below(typer.main.get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(["contseg", *words]))
class TestHelp:
    def lines(self, words: tuple[str, ...]) -> list[str]:
        text = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": "80"}, catch_exceptions=False).output
        return [line.rstrip() for line in text.splitlines() if line.strip()]

    def test_says_in_the_imperative_what_the_command_does_and_ends_with_an_example(self, words):
        usage, *rest = self.lines(words)
        assert usage.startswith(" Usage: ")
        first = next(line for line in rest if not line.startswith("  "))  # a long usage is continued indented
        assert first.split()[0] in VERBS
        assert rest[-1].startswith(f" Example: {' '.join(['contseg', *words])}")

    def test_fits_80_columns(self, words):
        assert [line for line in self.lines(words) if len(line) > 80] == []
        assert "…" not in "".join(self.lines(words))

    def test_its_example_uses_options_and_recipes_that_there_are(self, words):
        _, *example = shlex.split(self.lines(words)[-1].partition("Example: ")[2])
        command, arguments = COMMANDS[words], example[len(words) :]
        while arguments and (*words, arguments[0]) in COMMANDS:  # of a group: the example of one of its commands
            words = (*words, arguments.pop(0))
            command = COMMANDS[words]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in arguments if word.startswith("--")} <= known
        recipes = {word for word in arguments if word.startswith(("voc/", "digits/"))}
        assert recipes <= set(recipe_names())


def test_the_list_of_recipes_fits_80_columns():
    lines = CliRunner().invoke(app, ["recipes"], env={"COLUMNS": "80"}, catch_exceptions=False).output.splitlines()
    assert len([line for line in lines if "/" in line.split(" ")[0]]) == len(recipe_names())
    assert [line for line in lines if len(line) > 80] == []


def test_help_imports_nothing_heavy():
    program = f"""
import sys
from contseg.cli.main import app
for words in {sorted(COMMANDS)}:
    try:
        app([*words, "--help"])
    except SystemExit:
        pass
print(*({HEAVY} & sys.modules.keys()), file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (result.returncode, result.stderr.strip()) == (0, "")
