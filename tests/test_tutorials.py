"""The tutorials of the documentation: their files are written and their commands run, in order."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from contseg.engine.run import Run
from contseg.interop.pretrained import load_pretrained
from tests.engine.runs import command

DOCS = Path(__file__).parent.parent / "docs"


def follow(tutorial: str, folder: Path) -> list[str]:
    """Write the files of a tutorial into the current folder, run its scripts and commands; returns the commands."""
    text = (DOCS / f"{tutorial}.md").read_text(encoding="utf-8")
    for name, content in re.findall(r'```\w+ title="(\S+)"\n(.*?)```', text, re.DOTALL):
        (folder / name).write_text(content, encoding="utf-8")
        if name.endswith(".py"):
            exec(compile(content, name, "exec"), {"__name__": "__main__"})
    commands = re.findall(r"^    contseg (.*)$", text, re.MULTILINE)
    for line in commands:
        code, printed, errors = command(*shlex.split(line))
        assert (code, errors) == (0, ""), f"contseg {line}\n{printed}{errors}"
    return commands


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["contseg"])
    return tmp_path


@pytest.mark.slow
def test_research(folder):
    done = [line.split()[0] for line in follow("tutorial-research", folder)]
    assert done == ["recipes", "plan", "dry-run", "train", "train", "table", "report"]
    assert len(Run("runs/plop").metrics()) == len(Run("runs/finetune").metrics())
    table = (folder / "table.md").read_text(encoding="utf-8")
    assert "plop" in table
    assert "finetune" in table
    assert (folder / "compare.html").is_file()


@pytest.mark.slow
def test_practice(folder):
    follow("tutorial-practice", folder)
    started, learned = Run("runs/new").metrics()[0], Run("runs/new").metrics()[-1]
    assert (started["step"], learned["step"]) == (0, 1)
    for part in ("ids", "colours", "overlays"):
        assert len(list((folder / "predictions" / part).glob("*.png"))) == 16


@pytest.mark.slow
def test_extend(folder):
    follow("tutorial-extend", folder)
    before, after = (json.loads((folder / f"{name}.json").read_text())["iou"] for name in ("before", "after"))
    assert after.keys() - before.keys() == {"blue"}
    assert load_pretrained("both")[1].names == ("background", "red", "green", "blue", "yellow")
    assert load_pretrained("yellow")[1].names == ("background", "red", "green", "yellow")
    text = (DOCS / "tutorial-extend.md").read_text(encoding="utf-8")
    story = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    assert len(story.splitlines()) <= 10
    exec(compile(story, "story", "exec"), {})
    assert load_pretrained("without-blue")[1].names == ("background", "red", "green")
