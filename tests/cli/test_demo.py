"""`contseg demo`: several methods and the upper bound, side by side, started once and finished whenever."""

import json
import shutil

import pytest

from contseg.engine.run import Run
from tests.conftest import TINY
from tests.engine.runs import command, same, weights

SMALL = [*TINY, "training.epochs=1", "training.batch=10"]
KEYS = ["old", "new", "all", "average", "forgetting", "seconds"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The folder of a finished demo, and what it said."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    code, said, errors = command("demo", "--out", folder, "--methods", "finetune,mib", *SMALL)
    assert (code, errors) == (0, "")
    return folder, said


def files(folder) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.jsonl")}


def test_the_summary_holds_the_figures_of_each_method_and_of_joint(shown):
    folder, said = shown
    summary = json.loads((folder / "summary.json").read_text())
    assert list(summary) == ["finetune", "mib", "joint"]
    for name, figures in summary.items():
        assert list(figures) == KEYS
        own = json.loads((folder / name / "summary.json").read_text())
        assert figures == {key: own[key] for key in KEYS}
        assert f"│ {name} " in said
    assert summary["joint"]["forgetting"] is None
    assert "forgetting: not measured, after one step nothing could be forgotten (joint)" in " ".join(said.split())


def test_joint_is_scored_with_the_groups_of_the_others(shown):
    folder, _ = shown
    joint = json.loads((folder / "joint" / "summary.json").read_text())
    assert joint["steps"] == 1
    assert joint["new"] is not None


def test_the_methods_share_their_first_step(shown):
    folder, said = shown
    assert len(list((folder / "cache").iterdir())) == 1  # joint learns alone
    assert said.count("from the cache") == 1
    assert same(*(weights(Run(folder / name), step=0) for name in ("finetune", "mib")))


def test_the_page_compares_them(shown):
    folder, said = shown
    page = (folder / "report.html").read_text()
    assert all(f"<tr><td>{name}</td>" in page for name in ("finetune", "mib", "joint"))
    assert f"report: {folder / 'report.html'}" in said


def test_a_finished_demo_is_shown_again_without_training(shown):
    folder, _ = shown
    before = files(folder)
    code, said, _ = command("demo", "--out", folder, "--methods", "finetune,mib", *SMALL)
    assert code == 0
    assert "step 1/6" not in said
    assert "│ mib " in said
    assert files(folder) == before


def test_a_demo_that_was_cut_off_goes_on(shown, tmp_path):
    folder, _ = shown
    shutil.copytree(folder, tmp_path / "demo")
    (tmp_path / "demo" / "mib" / "summary.json").unlink()
    shutil.rmtree(tmp_path / "demo" / "mib" / "steps" / "05")
    code, said, _ = command("demo", "--out", tmp_path / "demo", "--methods", "finetune,mib", *SMALL)
    assert code == 0
    assert [line.split(":")[0] for line in said.splitlines() if ": old" in line] == ["mib step 6/6 (nine)"]
    assert set(json.loads((tmp_path / "demo" / "summary.json").read_text())) == {"finetune", "mib", "joint"}


def test_a_demo_with_other_options_is_refused(shown):
    folder, _ = shown
    code, _, errors = command("demo", "--out", folder, "--methods", "finetune,mib", *SMALL, "training.lr=0.5")
    assert code == 2
    assert "training.lr was 0.1, is 0.5" in errors


def test_a_fresh_demo_goes_to_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo-1").mkdir(parents=True)
    code, _, _ = command("demo", "--fresh", "--methods", "joint", *SMALL)
    assert code == 0
    assert (tmp_path / "runs" / "demo-2" / "summary.json").is_file()
    assert not list((tmp_path / "runs" / "demo-1").iterdir())


def test_a_fresh_demo_trains_everything_again(tmp_path):
    arguments = ["demo", "--fresh", "--out", tmp_path / "demo", "--methods", "joint", *SMALL]
    assert "from the cache" not in command(*arguments)[1]
    code, said, _ = command(*arguments)
    assert code == 0
    assert "step 1/1" in said
    assert "from the cache" not in said
