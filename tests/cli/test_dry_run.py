"""`contseg dry-run`: which recipes are tried, and what is said of them."""

import os
import signal
import subprocess
import sys

import pytest
from ruamel.yaml import YAML

from contseg.cli import dry_run
from contseg.cli.dry_run import Row, one_of_each_network, rows_of, run_dry_run
from contseg.errors import ContsegError
from contseg.recipes.read import read_recipe, recipe_names
from tests.engine.processes import alive, linux, wait_for
from tests.engine.runs import command

SOUND = {
    "name": "sound",
    "data": {"dataset": "voc", "crop": 32},
    "scenario": {"split": "15-1"},
    "network": {"backbone": "resnet18", "width": 4, "head": "fcn", "head_width": 8},
}


@pytest.fixture
def recipes(tmp_path):
    """Two recipe files: one that passes, and one with a key that its head lacks."""
    paths = [tmp_path / "sound.yaml", tmp_path / "vain.yaml"]
    for path, extra in zip(paths, ({}, {"fpn_width": 16}), strict=True):
        YAML().dump(SOUND | {"network": SOUND["network"] | extra}, path)
    return paths


def in_this_process(monkeypatch) -> None:
    """Rows are tried here, which is quicker for so few."""
    alone = lambda row, overrides, folder, threads: dry_run.attempt(row, overrides, folder, 1)  # noqa: E731
    monkeypatch.setattr(dry_run, "_in_own_process", alone)


class TestWhichRecipes:
    def test_all_is_every_recipe_of_a_published_dataset_at_a_quarter(self):
        rows = rows_of("all", full=False)
        assert {row.source for row in rows} == {
            name for name in recipe_names() if read_recipe(name).data.dataset not in ("digits", "folder", "globe")
        }
        assert not any(row.full for row in rows)

    def test_all_begins_with_one_recipe_of_each_network_at_its_own_crop(self, monkeypatch):
        names = ["digits/joint", "voc/finetune_15-1_overlapped", "voc/mib_15-1_overlapped"]
        monkeypatch.setattr(dry_run, "recipe_names", lambda: names)
        assert rows_of("all") == [Row(names[1], True), Row(names[1], False), Row(names[2], False)]

    def test_a_network_is_a_head_on_a_backbone(self):
        names = ["digits/mib_5-1", "digits/plop_5-1", "digits/ssul_5-1", "digits/nothing"]
        assert one_of_each_network(names) == ["digits/mib_5-1", "digits/ssul_5-1"]

    @pytest.mark.parametrize(
        ("source", "full", "rows"),
        [
            ("digits/plop_5-1", None, [Row("digits/plop_5-1", True)]),
            ("digits/plop_5-1", False, [Row("digits/plop_5-1", False)]),
            ("digits/plop_*", None, [Row("digits/plop_5-1", True)]),
            (
                "digits/l*_5-1",
                None,
                [Row(f"digits/{name}_5-1", False) for name in ("lag", "lwf-mc", "lwf")],
            ),
            ("digits/ssul*", True, [Row("digits/ssul-m_5-1", True), Row("digits/ssul_5-1", True)]),
        ],
    )
    def test_a_name_is_tried_at_its_own_crop_and_what_a_pattern_matches_at_a_quarter(self, source, full, rows):
        assert rows_of(source, full=full) == rows

    def test_a_pattern_that_matches_nothing_is_an_error(self):
        with pytest.raises(ContsegError, match=r"'digitz/\*': no packaged recipe matches"):
            rows_of("digitz/*")

    def test_at_least_one_process_is_required(self):
        with pytest.raises(ContsegError, match="--processes: must be at least 1"):
            run_dry_run("all", [], processes=0)


class TestOutput:
    @pytest.mark.parametrize("processes", ["this one", pytest.param("own ones", marks=pytest.mark.slow)])
    def test_all_are_tried_and_those_that_fail_are_named_at_the_end(self, processes, recipes, monkeypatch):
        sound, vain = map(str, recipes)
        monkeypatch.setattr(dry_run, "recipe_names", lambda: [vain, "absent", sound])
        if processes == "this one":
            in_this_process(monkeypatch)
        code, out, err = command("dry-run", "*", "--processes", 1 if processes == "this one" else 2)
        assert code == 2
        assert err.startswith("error: dry-run: 2 of 3 recipes failed: ")
        assert err.count("\n") == 1
        assert f"{vain} (1/4)" in err
        assert f"{sound} (1/4)" not in err
        lines = {line.split(" ")[0]: line for line in out.splitlines()}
        assert "network.head: fcn has no key 'fpn_width' (got 16)" in lines[vain]
        assert "recipe 'absent': not found" in lines["absent"]
        assert lines["1"].startswith("1 of 3 recipes passed in ")
        millions, seconds, memory, verdict = lines[sound].split()[-4:]
        assert float(millions) == 0.05
        assert float(seconds) > 0
        assert memory == "-" or float(memory) > 0
        assert verdict == "ok"

    def test_a_recipe_that_passes_ends_with_exit_code_0(self, recipes, monkeypatch):
        in_this_process(monkeypatch)
        code, out, err = command("dry-run", recipes[0], "data.crop=40")
        assert (code, err) == (0, "")
        assert out.splitlines()[-1].startswith("1 of 1 recipes passed in ")

    def test_a_recipe_that_makes_the_program_fail_does_not_end_the_others(self, recipes, monkeypatch, tmp_path):
        def fail(*arguments, **options):
            raise ValueError("three\nlines\nof it")

        monkeypatch.setattr(dry_run, "rehearse", fail)
        assert dry_run.attempt(Row(str(recipes[0]), True), [], tmp_path, 1) == "ValueError: three lines of it"


@linux
@pytest.mark.slow
def test_a_signal_ends_a_rehearsal_at_once_and_leaves_no_process(recipes, tmp_path):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CONTSEG_TEST_MARK": str(tmp_path)}
    command = [sys.executable, "-m", "contseg", "dry-run", str(recipes[0])]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: len(alive(str(tmp_path))) > 2, process)  # beside the command, the server and what it forked
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, "Interrupted.\n")
    wait_for(lambda: not alive(str(tmp_path)), seconds=10)
