"""`contseg table`: runs beside published numbers."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from contseg.cli.console import console
from contseg.cli.table import print_table
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.recipes.read import read_recipe, to_yaml
from tests.engine.runs import interrupted, learn, tiny_recipe

PLOP, MIB, JOINT = "voc/plop_15-1_overlapped", "voc/mib_15-1_overlapped", "voc/joint_15-1"
FIGURES = {"old": 60.0, "new": 20.0, "all": 50.0, "old_with_background": 65.0, "all_with_background": 55.0}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Run:
    return learn(tmp_path_factory.mktemp("table") / "digits", tiny_recipe("mib", "training.epochs=1"))


@pytest.fixture
def pretend(digits, tmp_path):
    """The folder of a finished run that says to be of another recipe: `pretend(name, source, overrides, figures)`."""

    def make(name: str, source: str, overrides: tuple[str, ...] = (), figures: dict = FIGURES) -> Path:
        folder = tmp_path / name
        shutil.copytree(digits.folder, folder)
        recipe = read_recipe(source, ["backbone_weights=resnet101.pth", *overrides])
        Run(folder).write_text("recipe.yaml", to_yaml(recipe))
        Run(folder).write_text("summary.json", json.dumps(digits.summary() | {"notes": {}} | figures))
        return folder

    return make


def told(*folders: Path, out: Path | None = None, columns: int = 200) -> str:
    """What is printed on a terminal, by default one that is wide enough."""
    width, console.width = console.width, columns
    try:
        with console.capture() as capture:
            print_table(folders, out)
    finally:
        console.width = width
    return capture.get()


def cells(text: str) -> list[list[str]]:
    """The rows of printed tables."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line.startswith("│")]


class TestARun:
    def test_stands_above_what_was_published_for_it_with_the_distance(self, pretend):
        text = told(pretend("mine", PLOP))
        assert text.startswith("voc 15-1 overlapped")
        assert cells(text) == [
            ["mine", "not counted", "60.0", "20.0", "50.0", ""],
            ["mine", "counted", "65.0", "20.0", "55.0", ""],
            ["published", "counted", "65.1 (-0.1)", "21.1 (-1.1)", "54.6 (+0.4)", "PLOP repository, VOC table"],
            ["rerun", "counted", "66.4 (-1.4)", "19.3 (+0.7)", "55.2 (-0.2)", "PLOP repository, issue 3 (its author)"],
        ]
        assert "mine:" not in text

    def test_is_cut_off_nowhere_in_a_narrow_terminal(self, pretend):
        assert "…" not in told(pretend("a-run-of-a-very-long-name", PLOP), columns=80)

    def test_is_marked_and_told_about_where_it_is_not_comparable(self, pretend):
        text = told(pretend("mine", PLOP, ("data.test_crop=null",)))
        assert [row[0] for row in cells(text)] == ["mine", "mine", "published *", "rerun *"]
        notes = [line for line in text.splitlines() if line.startswith("mine: ")]
        assert notes == [
            "mine: the recipe was changed: data.test_crop was 512, is none",
            "mine: whole images are scored; published: crop 512",
        ]

    def test_is_told_about_with_the_source_where_only_some_rows_differ(self, pretend):
        text = told(pretend("mine", MIB, ("scenario.policy=plop",)))
        assert "mine: MiB repository, VOC table: the label policy is plop; published: mib" in text

    def test_that_nobody_published_stands_alone(self, digits):
        text = told(digits.folder)
        summary = digits.summary()
        (row,) = cells(text)
        assert row == ["digits", "not counted", *(f"{summary[key]:.1f}" for key in ("old", "new", "all")), ""]

    def test_whose_changed_recipe_nobody_published_is_marked(self, pretend):
        text = told(pretend("mine", PLOP, ("scenario.split=10-5-5",)))
        assert "mine: not comparable with published numbers: scenario.split was 15-1, is 10-5-5" in text

    def test_of_a_method_that_is_not_registered_here_is_shown(self, pretend):
        folder = pretend("mine", PLOP)
        text = (folder / "recipe.yaml").read_text()
        Run(folder).write_text("recipe.yaml", text.replace("name: plop", "name: somebody-s-own"))
        assert cells(told(folder)) == [["mine", "not counted", "60.0", "20.0", "50.0", ""]]

    def test_that_is_not_finished_says_where_it_stands_and_is_not_compared(self, pretend):
        folder = pretend("mine", PLOP, ("data.test_crop=null",))
        (folder / "summary.json").unlink()
        shutil.rmtree(folder / "steps" / "01")
        Run(folder).manifest.forget(folder / "steps" / "01" / "confusion.npz")
        lines = [line for line in Run(folder).metrics() if line["step"] == 0]
        Run(folder).write_text("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
        text = told(folder)
        step = next(line for line in lines if line["kind"] == "step")
        (row,) = cells(text)
        assert row[2:5] == [f"{100 * step['old']:.1f}", "-", f"{100 * step['all']:.1f}"]
        assert "mine: not finished: the numbers are those after step 0 of 0 to 1; not compared" in text
        assert "mine: not comparable with published numbers: data.test_crop was 512, is none" in text

    def test_whose_summary_was_lost_says_so(self, pretend):
        folder = pretend("mine", PLOP)
        (folder / "summary.json").unlink()
        line = f"mine: summary.json is missing, so nothing is compared; make it again with: contseg train --resume {folder}"
        assert line in told(folder)


class TestSeveralRuns:
    def test_of_one_protocol_share_a_table_and_others_have_their_own(self, pretend):
        folders = [
            pretend("plop", PLOP),
            pretend("other", PLOP, ("scenario.ratio=0.5",)),
            pretend("mib", MIB),
            pretend("joint", JOINT, ("scenario.setting=overlapped",)),
        ]
        text = told(*folders)
        headings = [line.strip() for line in text.splitlines() if line.startswith("voc ")]
        assert headings == ["voc 15-1 overlapped", "voc 15-1 overlapped ratio 0.5"]
        names = [row[0] for row in cells(text) if row[0] in ("plop", "other", "mib", "joint")]
        assert list(dict.fromkeys(names)) == ["plop", "mib", "joint", "other"]

    def test_of_one_name_are_told_apart_by_their_folders(self, pretend, tmp_path):
        one, two = pretend("a/run", PLOP), pretend("b/run", PLOP)
        assert {"a/run", "b/run"} <= {row[0] for row in cells(told(one, two))}


class TestFiles:
    def test_markdown_holds_what_is_printed(self, pretend, tmp_path):
        out = tmp_path / "new" / "table.md"
        text = told(pretend("mine", PLOP, ("data.test_crop=null",)), out=out)
        assert f"table: {out}" in text
        written = out.read_text()
        rows = re.findall(r"^\| (.*) \|$", written, re.MULTILINE)
        assert [row.split(" | ") for row in rows[1:]] == cells(text)
        assert written.startswith("## voc 15-1 overlapped\n")
        for line in text.splitlines():
            assert not line.startswith("mine: ") or f"* {line}\n" in written

    def test_bars_in_names_do_not_break_markdown(self, pretend, tmp_path):
        told(pretend("a|b", PLOP), out=tmp_path / "table.md")
        assert "| a\\|b | not counted |" in (tmp_path / "table.md").read_text()

    def test_csv_holds_figures_and_distances_unrounded(self, pretend, tmp_path):
        folder = pretend("mine", PLOP, ("data.test_crop=null",), FIGURES | {"all_with_background": 55.1234})
        told(folder, out=tmp_path / "table.csv")
        lines = list(csv.DictReader((tmp_path / "table.csv").open()))
        assert [line["kind"] for line in lines] == ["run", "run", "published", "rerun"]
        assert {line["run"] for line in lines} == {"mine"}
        row = lines[2]
        assert (row["all"], float(row["delta_all"]), row["comparable"]) == ("54.64", pytest.approx(0.4834), "no")
        assert "whole images are scored" in row["notes"]
        assert lines[0]["delta_all"] == lines[0]["comparable"] == ""


class TestBadInput:
    def test_a_folder_that_is_no_run(self, tmp_path):
        with pytest.raises(ContsegError, match="contains no run"):
            print_table([tmp_path])

    def test_a_run_without_a_finished_step(self, tmp_path):
        interrupted(tmp_path / "run", tiny_recipe("mib", "training.epochs=1"), "updated", 2)
        with pytest.raises(ContsegError, match="run: no step is finished yet, so there is nothing to compare"):
            print_table([tmp_path / "run"])

    @pytest.mark.parametrize("name", ["table.xlsx", "table"])
    def test_an_unknown_ending_is_refused_before_anything_is_read(self, tmp_path, name):
        with pytest.raises(ContsegError, match=rf"--out: .*{name}: unknown suffix '.*'; use \.md or \.csv"):
            print_table([tmp_path / "nothing"], tmp_path / name)
        assert not list(tmp_path.iterdir())


def test_a_figure_that_was_not_measured_is_a_dash_with_its_reason_and_an_empty_cell_in_csv(pretend, tmp_path):
    why = "not measured, no class of step 0 is labelled in the test set"
    folder = pretend("mine", PLOP, figures=FIGURES | {"old": None, "old_with_background": None, "notes": {"old": why}})
    text = told(folder, out=tmp_path / "table.csv")
    assert cells(text)[0] == ["mine", "not counted", "-", "20.0", "50.0", ""]
    assert f"mine: old: {why}" in text
    line = (tmp_path / "table.csv").read_text().splitlines()[1]
    assert ",run,not counted,,20.0,50.0," in line
    assert f"old: {why}" in line
