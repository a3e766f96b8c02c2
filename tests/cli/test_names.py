"""Classes may have any name: it is shown as it is, in the terminal, in pictures and on the page, and ends nothing."""

import base64
import html
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from contseg.cli import console, progress
from contseg.cli.console import PlainConsole
from contseg.cli.progress import TerminalReporter
from contseg.errors import visible
from contseg.report.plan_map import write_plan_picture
from tests.conftest import TINY
from tests.engine.runs import command

NAMES = {
    "markup": ("background", "[/x]", "road [wet]", ":smile:"),
    "formula": ("background", "$x_{$", "50 %s {0}", "_a$b$"),
    "escape": ("background", "a\x1b[31mred", "<b>bold</b>", "\x07\u202ebell"),
}


def shown(name: str) -> str:
    """As it should stand in a terminal."""
    return visible(name)


@pytest.mark.parametrize("kind", NAMES)
def test_any_name_can_be_trained_reported_and_listed(make_folder, tmp_path, kind):
    names = NAMES[kind]
    root, run = make_folder(12), tmp_path / "run"
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    data = ["data.dataset=folder", "data.options={}", f"data.path={root}", "scenario.split=1-2"]
    options = [*TINY, *data, "training.epochs=1", "network.width=4", "network.head=fcn", "network.head_width=8"]
    said = {
        "train": command("train", "digits/plop_5-1", *options, "--out", run, "--no-cache"),
        "evaluate": command("evaluate", run),
        "check": command("data", "check", "folder", root),
        "plan": command("plan", "digits/plop_5-1", *options, "--pixels", "--draw", tmp_path / "plan.svg"),
        "table": command("table", run),
    }
    assert {name: (code, errors) for name, (code, _, errors) in said.items()} == dict.fromkeys(said, (0, ""))
    assert not [name for name, (_, out, _) in said.items() if re.search("[\x07\x1b\u202e]", out)]
    for name in names:
        told = shown(name)
        assert all(told in said[key][1] for key in ("evaluate", "check", "plan"))
        assert name == "background" or told in said["train"][1]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert all(html.escape(shown(name), quote=True).replace("&#x27;", "&#39;") in page for name in names)
    assert not re.search("[\x07\x1b\u202e]", page)
    drawings = re.findall('data:image/svg.xml;base64,([^"]+)', page)
    texts = [base64.b64decode(drawing).decode() for drawing in drawings] + [(tmp_path / "plan.svg").read_text()]
    assert len(texts) > 3
    for text in texts:
        ElementTree.fromstring(text)
    drawn = html.unescape("".join(texts))  # matplotlib writes each text, as it draws it, into a comment
    assert all(f"<!-- {shown(name)} -->" in drawn or f"<!--  {shown(name)} -->" in drawn for name in names)


@pytest.mark.parametrize("kind", NAMES)
def test_the_bar_of_a_terminal_shows_it_too(monkeypatch, kind):
    file = io.StringIO()
    terminal = PlainConsole(file=file, force_terminal=True, width=200, color_system=None)
    for module in (console, progress):
        monkeypatch.setattr(module, "console", terminal)
    reporter = TerminalReporter()
    reporter.start([3, 3])
    reporter.step_started(0, 2, NAMES[kind], 3)
    reporter.updated(0, 1, 0.5, 2)
    reporter.stop()
    drawn = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", file.getvalue())  # what rich itself steers the cursor with
    assert ", ".join(map(shown, NAMES[kind])) in drawn
    assert "\x1b[31m" not in file.getvalue()


def test_an_error_is_one_line_without_escape_codes(make_folder):
    root = make_folder(8)
    content = {"0": "background", "1": "a\x1b[31m\nred", "2": "a\x1b[31m\nred", "3": "blue"}
    (root / "classes.yaml").write_text(json.dumps({int(key): name for key, name in content.items()}))
    code, _, errors = command("data", "check", "folder", root)
    assert code == 2
    assert len(errors.splitlines()) == 1
    assert r"\x1b[31m\nred" in errors


def test_a_plan_is_drawn_with_any_name(tmp_path):
    step = {"index": 0, "new_classes": ["a\x1b$"], "domains": ["$d_{$"], "train_holding": [1], "train_images": 1}
    step |= {"memory_images": 0, "test_images": 1}
    plan = {
        "steps": [step],
        "class_names": ["a\x1b$"],
        "dataset": "$x_{$",
        "split": "1",
        "by": "class",
        "setting": "overlapped",
    }
    path = write_plan_picture(plan | {"policy": "plop", "hash": "h"}, tmp_path / "plan.svg")
    ElementTree.fromstring(path.read_text())
