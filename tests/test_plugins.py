"""Parts of one's own on the command line: how they are given, found in every process, and refused."""

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from PIL import Image

from contseg import plugins
from contseg.data.open import DATASETS
from contseg.errors import ContsegError
from contseg.interop.convert import CONVERTERS
from contseg.methods.registry import METHODS
from contseg.plugins import Registry, load_plugins
from contseg.recipes.read import read_recipe, read_run
from tests.conftest import TINY
from tests.engine.runs import command

METHOD = """
from dataclasses import dataclass
from contseg import register_method
from contseg.methods.finetune import Finetune

@register_method
@dataclass(frozen=True)
class {kind}(Finetune):
    pull: float = 1.0
    name = "{name}"
"""
SMALL = [*TINY, "scenario.split=5-5", "training.batch=10", "training.epochs=1", "network.width=4", "network.head_width=8"]


@pytest.fixture
def write_plugin(tmp_path, monkeypatch, forgotten):
    """Writes a file; after the test nothing of it is imported or registered any more."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(plugins, "_not_loaded", {})

    def write(file: str, text: str | None = None, **names: str) -> Path:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {"kind": path.stem.title(), "name": path.stem} | names
        path.write_text(METHOD.format(**kind) if text is None else text)
        return path

    yield write
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


def show(*arguments) -> str:
    code, out, err = command("recipes", "show", *arguments)
    assert code == 0, err
    return out


def error_of(*arguments) -> str:
    """The one line with which a command ends."""
    code, _, err = command(*arguments)
    assert code == 2
    assert err.count("\n") == 1
    return err


class TestAPluginIsGiven:
    def test_on_the_command_line_as_a_file(self, write_plugin):
        file = write_plugin("gentle.py")
        out = show("digits/finetune_5-1", "method={name: gentle, pull: 2.0}", "--plugin", file)
        assert "pull: 2.0" in out
        assert f'plugins: ["{file}"]' in out

    def test_as_a_module(self, write_plugin, tmp_path, monkeypatch):
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.syspath_prepend(tmp_path)
        write_plugin("mine/__init__.py", "")
        write_plugin("mine/kind.py")
        assert 'plugins: ["mine.kind"]' in show("digits/finetune_5-1", "method.name=kind", "--plugin", "mine.kind")

    def test_in_a_recipe_relative_to_it(self, write_plugin, tmp_path, monkeypatch):
        file = write_plugin("recipes/tender.py")
        recipe = write_plugin(
            "recipes/mine.yaml", "extends: digits/finetune_5-1\nplugins: [tender.py]\nmethod: {name: tender}\n"
        )
        monkeypatch.chdir(tmp_path)
        assert read_recipe(recipe).plugins == [str(file)]
        assert read_recipe("recipes/mine.yaml").method == {"name": "tender", "pull": 1.0}

    def test_and_those_of_parts_recipe_and_command_line_add_up(self, write_plugin):
        one, two, three = (write_plugin(f"{name}.py") for name in ("mild", "soft", "calm"))
        write_plugin("part.yaml", "plugins: mild.py\nextends: digits/finetune_5-1\n")
        recipe = write_plugin("mine.yaml", "extends: part\nplugins: [soft.py]\n")
        assert read_recipe(recipe, [f"plugins=[{three}]"]).plugins == [str(one), str(two), str(three)]

    def test_a_later_place_replaces_an_earlier_one(self, write_plugin):
        write_plugin("old/moved.py")
        new = write_plugin("new/moved.py")
        recipe = write_plugin("mine.yaml", "extends: digits/finetune_5-1\nplugins: [old/moved.py]\n")
        assert read_recipe(recipe, [f"plugins={new}"]).plugins == [str(new)]

    @pytest.mark.parametrize(
        "arguments",
        [
            ["plan", "digits/finetune_5-1", "method.name=brisk"],
            ["recipes", "--dataset", "digits"],
            ["models"],
            ["convert", "none.pth", "--classes", "voc", "--out", "none"],
            ["data", "check", "voc", "none"],
            ["table", "none"],
            ["report", "none"],
            ["predict", "none", "none"],
            ["evaluate", "none"],
            ["dry-run", "digits/finetune_5-1", "method.name=brisk"],
            ["train", "digits/finetune_5-1", "method.name=brisk"],
            ["sweep", "digits/finetune_5-1", "method.name=brisk", "--out", "none"],
        ],
        ids=lambda arguments: " ".join(arguments[:2]),
    )
    def test_to_every_command(self, write_plugin, arguments):
        """An error in the plugin shows that the command imports it."""
        file = write_plugin("brisk.py", "1 / 0\n")
        assert f"plugins: {file}, line 1: ZeroDivisionError" in error_of(*arguments, "--plugin", file)


class TestARefusal:
    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("x = 1\nimport not_there_at_all\n", "line 2: No module named 'not_there_at_all'"),
            ("x = 1\n\nraise KeyError('a b')\n", "line 3: KeyError: 'a b'"),
            ("def f(:\n", "line 1: SyntaxError: invalid syntax"),
            ("from pathlib import Path\nPath('/not/there').read_text()\n", "line 2: FileNotFoundError"),
            ("import sys\nsys.exit('bye')\n", "line 2: SystemExit: bye"),
        ],
        ids=["import", "error", "syntax", "called", "exit"],
    )
    def test_a_broken_plugin_is_one_line_with_module_line_and_error(self, write_plugin, text, told):
        file = write_plugin("broken.py", text)
        assert f"error: plugins: {file}, {told}" in error_of("plan", "digits/finetune_5-1", "--plugin", file)

    def test_an_error_in_a_file_that_a_plugin_imports_names_that_file(self, write_plugin):
        file, other = write_plugin("outer.py", "import inner_file\n"), write_plugin("inner_file.py", "\n\n1 / 0\n")
        assert f"plugins: {file}, {other}, line 3: ZeroDivisionError" in error_of("models", "--plugin", file)

    def test_a_plugin_that_is_not_there(self, tmp_path):
        file = tmp_path / "absent.py"
        assert f"plugins: {file}: file not found; give its new place with --plugin" in error_of("models", "--plugin", file)
        told = error_of("models", "--plugin", "absent_module.part")
        assert "plugins: absent_module.part: no module named 'absent_module'; install it" in told

    @pytest.mark.parametrize("kind", ["head", "backbone"])
    def test_options_of_another_kind(self, write_plugin, kind):
        text = f"from contseg import register_{kind}\n@register_{kind}\nclass Mine:\n    name = 'mine'\n"
        assert f"Mine: options of a part subclass {kind.title()}Options" in error_of(
            "models", "--plugin", write_plugin(f"{kind}_of_mine.py", text)
        )

    @pytest.mark.parametrize("value", ["3", "[3]", "{a: b}", "['']"])
    def test_plugins_that_are_no_list(self, value):
        assert "plugins: expected modules or files, such as [careful.py]" in error_of(
            "plan", "digits/finetune_5-1", f"plugins={value}"
        )

    def test_a_file_that_is_called_like_another_module(self, write_plugin):
        file = write_plugin("json.py", "")
        assert f"plugins: {file}: another module has the name json" in error_of("models", "--plugin", file)
        file = write_plugin("a.b.py", "")
        assert "must not contain a dot; rename the file" in error_of("models", "--plugin", file)

    def test_an_unknown_part_and_how_to_give_it(self):
        told = error_of("plan", "digits/finetune_5-1", "method.name=zzz")
        assert "method.name: unknown method 'zzz'; known: adapter, " in told
        assert "your own come with --plugin FILE.py or MODULE" in told

    def test_two_plugins_of_one_name(self, write_plugin):
        one, two = write_plugin("first.py", name="same"), write_plugin("second.py", name="same")
        told = error_of("models", "--plugin", one, "--plugin", two)
        assert f"plugins: {two}, line 6: Second: the name 'same' is taken by first:First; choose another" in told

    def test_a_plugin_cannot_take_a_name_of_ours(self, write_plugin):
        file = write_plugin("greedy.py", name="plop")
        assert "Greedy: the name 'plop' is taken by contseg.methods.plop:PLOP" in error_of("models", "--plugin", file)

    def test_a_hyper_parameter_of_another_method(self, write_plugin):
        file = write_plugin("placid.py")
        told = error_of("plan", "digits/finetune_5-1", "method={name: placid, pod: 1.0}", "--plugin", file)
        assert "method.pod: method 'placid' has no such hyper-parameter; known: pull" in told


class TestEntryPoints:
    @pytest.fixture
    def registry(self, monkeypatch):
        """A registry with entry points of packages: `registry(("name", "module:attribute", "package"), ...)`."""

        class Package:
            def __init__(self, name):
                self.name = name

        def make(*entries):
            found = [EntryPoint(name, value, "contseg.shapes")._for(Package(package)) for name, value, package in entries]
            monkeypatch.setattr(plugins, "entry_points", lambda group: found if group == "contseg.shapes" else [])
            return Registry("shapes", "data.shape", {"half": "fractions:Fraction"})

        return make

    def test_are_listed_without_an_import_and_imported_when_used(self, registry):
        shapes = registry(("odd", "nowhere.at.all:Odd", "oddities"), ("path", "pathlib:Path", "paths"))
        assert list(shapes) == ["half", "odd", "path"]
        assert shapes["path"] is Path
        assert (shapes.package("path"), shapes.package("half"), shapes.package("none")) == ("pathlib", None, None)
        with pytest.raises(
            ContsegError, match=r"data.shape: odd \(nowhere.at.all:Odd of oddities\): no module named 'nowhere'"
        ):
            shapes["odd"]

    def test_an_attribute_that_is_not_there(self, registry):
        with pytest.raises(ContsegError, match=r"odd \(pathlib:Odd of p\): pathlib has no Odd; correct the entry point"):
            registry(("odd", "pathlib:Odd", "p"))["odd"]

    def test_two_packages_with_one_name(self, registry):
        shapes = registry(("odd", "one:Odd", "one-package"), ("odd", "two:Odd", "two-package"), ("half", "b:C", "third"))
        told = "two shapes have the name 'odd', one:Odd of one-package and two:Odd of two-package; uninstall one"
        with pytest.raises(ContsegError, match=told):
            shapes["odd"]
        with pytest.raises(ContsegError, match="two shapes have the name 'half', fractions:Fraction and b:C of third"):
            shapes["half"]

    def test_a_part_with_both_a_decorator_and_an_entry_point_is_one(self, registry):
        shapes = registry(("path", "pathlib:Path", "paths"))
        assert shapes.register(Path, "path") is shapes["path"]
        assert shapes.package("path") == "pathlib"


def test_names_are_listed_without_torch():
    code = (
        "import sys; from contseg.methods.registry import METHODS; from contseg.data.open import DATASETS;"
        "assert 'plop' in METHODS and 'voc' in DATASETS; list(METHODS), list(DATASETS); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_part_of_ours_can_be_imported():
    for registry in (METHODS, DATASETS, CONVERTERS):
        for name, part in registry.items():
            assert callable(part), name


def test_a_missing_plugin_is_named_where_a_part_of_it_is_used(tmp_path, write_plugin):
    load_plugins([str(tmp_path / "gone.py")], required=False)
    with pytest.raises(ContsegError, match=r"unknown method 'gone'; plugins: .*gone.py: file not found"):
        METHODS["gone"]


@pytest.mark.slow
class TestARun:
    """Of a method in a file, in real processes."""

    @pytest.fixture
    def contseg(self, tmp_path, own_cache):
        def run(*arguments, code=0) -> str:
            words = [sys.executable, "-m", "contseg", *map(str, arguments)]
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=os.environ)
            assert done.returncode == code, done.stderr
            return done.stdout + done.stderr

        return run

    def test_is_trained_resumed_measured_and_reported(self, tmp_path, write_plugin, contseg):
        file, moved = write_plugin("careful.py"), tmp_path / "elsewhere" / "careful.py"
        options = ["method={name: careful, pull: 2.0}", *SMALL, "training.devices=2", "training.workers=1"]
        contseg("train", "digits/finetune_5-1", *options, "--plugin", "careful.py", "--out", "run")
        assert read_run(tmp_path / "run" / "recipe.yaml").plugins == [str(file)]
        before = json.loads((tmp_path / "run" / "summary.json").read_text())
        assert "careful" in contseg("train", "--resume", "run")

        moved.parent.mkdir()
        file.rename(moved)
        told = contseg("train", "--resume", "run", code=2)
        assert told == f"error: plugins: {file}: file not found; give its new place with --plugin FOLDER/careful.py\n"
        # its method is not needed for any of these
        Image.new("RGB", (48, 48)).save(tmp_path / "image.png")
        assert "1 image: " in contseg("predict", "run", "image.png")
        assert "mean" in contseg("evaluate", "run")
        assert "report" in contseg("report", "run")
        contseg("table", "run")

        contseg("train", "--resume", "run", "--plugin", moved)
        assert read_run(tmp_path / "run" / "recipe.yaml").plugins == [str(moved)]
        assert json.loads((tmp_path / "run" / "summary.json").read_text())["all"] == before["all"]

    def test_dry_runs_in_processes_of_their_own_find_it(self, write_plugin, contseg):
        write_plugin("careful.py")
        small = ["network.width=4", "network.head_width=8", "data.crop=32", "data.options={size: 32}"]
        assert " ok" in contseg("dry-run", "digits/finetune_5-1", "method.name=careful", *small, "--plugin", "careful.py")
