"""What documents and docstrings say of files, names and each other is so."""

import re
from pathlib import Path

import pytest

import contseg
from contseg.data.open import DATASETS
from contseg.engine.run import FILES, FOLDERS, Run
from contseg.lock import OF_RUN
from contseg.recipes.recipe import DataOptions
from tests.engine.runs import learn, tiny_recipe

ROOT = Path(contseg.__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings(document):
    for target, _, anchor in re.findall(r"\]\(([^)#:]*)(#([^)]*))?\)", document.read_text(encoding="utf-8")):
        path = (document.parent / target).resolve() if target else document
        assert path.exists(), target
        if anchor:
            headings = re.findall("^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub("[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_that_are_named_are_there(document):
    for name in re.findall(r"`(docs/[a-z-]+\.md)`", document.read_text(encoding="utf-8")):
        assert (ROOT / name).is_file(), name


def test_the_docstring_of_recipes_names_every_dataset():
    named = re.search("dataset: (.*?), see", DataOptions.__doc__, re.DOTALL)
    assert re.findall("`([a-z0-9-]+)`", named[1]) == list(DATASETS)


class TestTheLayoutOfARun:
    LAYOUT = re.search(r"Layout:\n\n(.*?)\n\n", Run.__doc__, re.DOTALL)[1]
    NAMES = re.findall(r"^ {8}(\S+)", LAYOUT, re.MULTILINE)

    def test_names_whatever_an_overwrite_deletes(self):
        assert {name.split("/")[0] for name in self.NAMES} == {*FILES, *FOLDERS, OF_RUN}

    def test_names_every_file_that_a_run_leaves(self, tmp_path):
        run = learn(tmp_path / "run", tiny_recipe("plop", "training.epochs=1"))
        left = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file()}
        named = {re.sub(r"^steps/\d\d/", "steps/03/", name) for name in left if not name.startswith("tensorboard/")}
        assert named <= set(self.NAMES)
        by_commands = {"run.lock", "report.html", "tensorboard/", "log.txt", "maps.npz", "loggers.json"}
        by_commands |= {"explain.html", "explain.npz"}
        until_a_step_ends = {"steps/03/state.before.pt", "steps/03/features/"}
        assert set(self.NAMES) - named == by_commands | until_a_step_ends
