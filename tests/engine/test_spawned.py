"""Ranks that a script starts: with a main guard they work, without one the run ends in a line that says so."""

import multiprocessing
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from contseg.engine.spawned import UNGUARDED
from contseg.engine.train import train
from contseg.recipes.build import make_job, start_run
from tests.conftest import TINY
from tests.engine.runs import tiny_recipe

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
OWN_METHOD = (Path(__file__).parents[2] / "docs" / "your-own-method.md").read_text(encoding="utf-8")
SMALL = [*TINY, "scenario.split=5-5", "training.batch=10", "training.epochs=1", "training.devices=2"]


def example(document: str) -> str:
    """The first Python example of a document, with two ranks and a tiny recipe."""
    code = re.search(r"```python\n(.*?)```", document, re.DOTALL)[1]
    code, count = re.subn(r"(read_recipe\(.*?, \[.*)\]\)", lambda found: f"{found[1]}, *{SMALL!r}])", code)
    assert count == 1
    return code


def without_guard(code: str) -> str:
    head, body = re.split(r"^if __name__ == .*\n", code, flags=re.MULTILINE)
    return head + re.sub(r"^    ", "", body, flags=re.MULTILINE)


def run_script(folder: Path, code: str, *, seconds: float = 200) -> subprocess.CompletedProcess:
    (folder / "script.py").write_text(code, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip


@pytest.mark.parametrize(
    "call",
    [
        lambda folder: start_run(tiny_recipe(), folder),
        lambda folder: make_job(tiny_recipe(), folder),
        lambda folder: train(None),
    ],
    ids=["start_run", "make_job", "train"],
)
def test_a_rank_that_imports_the_script_goes_no_further_than_the_first_call(tmp_path, monkeypatch, call):
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit) as caught:
        call(tmp_path / "run")
    assert caught.value.code == UNGUARDED
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
class TestAScript:
    @pytest.mark.parametrize("document", [README, OWN_METHOD], ids=["README", "own method"])
    def test_of_the_documents_works_with_two_ranks_and_when_it_is_run_again(self, tmp_path, document):
        first = run_script(tmp_path, example(document))
        assert first.returncode == 0, first.stderr
        again = run_script(tmp_path, example(document))
        assert (again.returncode, again.stdout) == (0, first.stdout)

    @pytest.mark.parametrize("document", [README, OWN_METHOD], ids=["README", "own method"])
    def test_without_the_guard_ends_in_one_line_that_names_it(self, tmp_path, document):
        done = run_script(tmp_path, without_guard(example(document)))
        assert done.returncode == 1
        assert done.stderr.strip().splitlines()[-1] == (
            "contseg.errors.ContsegError: training.devices: every rank imports the training script; put the code of the"
            ' script below `if __name__ == "__main__":`'
        )
        assert done.stderr.count("Traceback") == 1  # that of the script itself

    def test_whose_rank_cannot_import_it_ends_in_seconds(self, tmp_path):
        code = f"""
import multiprocessing, sys
from pathlib import Path
from contseg import make_job, read_recipe, start_run, train

if getattr(multiprocessing.current_process(), "_inheriting", False):
    sys.exit(3)
recipe = read_recipe("digits/finetune_5-1", {SMALL!r})
start_run(recipe, Path("run"))
train(make_job(recipe, Path("run")))
"""
        started = time.monotonic()
        done = run_script(tmp_path, code)
        assert done.returncode == 1
        assert "ended with exit code 3 before training was finished" in done.stderr.strip().splitlines()[-1]
        assert time.monotonic() - started < 100
