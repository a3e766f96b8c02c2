"""The sanity table: many runs from one command, resumable, and a page whose numbers and notes can be trusted."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.digits_table import TABLE
from benchmarks.table_command import Table, chosen_rows, parsed, with_more_seeds
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.sweeps.cells import Cell, Row, cells_of
from contseg.sweeps.page import Result, kept_notes, page, plan_warnings
from contseg.sweeps.runs import begin, tasks_of
from tests.conftest import TINY
from tests.engine.runs import lines, same, weights

ROOT = Path(__file__).parent.parent
SMALL = [*TINY, "training.epochs=1", "training.batch=10"]
ROWS = {"finetune": Row("finetune", "digits/finetune_5-1"), "mib": Row("MiB", "digits/mib_5-1")}


def table_of(*seeds: int) -> Table:
    """A small table with these seeds in every row."""
    rows = {name: replace(row, seeds=seeds) for name, row in ROWS.items()}
    return replace(TABLE, sections={"Methods": rows})


# --- which runs there are


def test_every_row_has_its_first_seed_before_any_has_its_second(tmp_path):
    cells = cells_of(table_of(0, 1).rows, SMALL, tmp_path)
    assert [(cell.row, cell.seed) for cell in cells] == [("finetune", 0), ("mib", 0), ("finetune", 1), ("mib", 1)]
    assert [cell.recipe.training.seed for cell in cells] == [0, 0, 1, 1]


def test_methods_that_learn_step_0_alike_share_it_per_seed(tmp_path):
    tasks = tasks_of(cells_of(table_of(0, 1).rows, SMALL, tmp_path))
    keys = [one.key for one in tasks]
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert tasks[0].work(shares=False) == sum(tasks[0].images)
    assert tasks[1].work(shares=True) == sum(tasks[1].images[1:])


def test_a_row_may_have_seeds_of_its_own(tmp_path):
    rows = {"finetune": replace(ROWS["finetune"], seeds=(0,)), "mib": replace(ROWS["mib"], seeds=(2, 0))}
    table = replace(TABLE, sections={"Methods": rows})
    cells = cells_of(table.rows, SMALL, tmp_path)
    assert [(cell.row, cell.seed) for cell in cells] == [("finetune", 0), ("mib", 0), ("mib", 2)]
    text = page(table, {("mib", "0"): result(1.0)})
    assert "1 of 3 finished, seeds 0, 2" in text
    assert "Not finished (seeds): finetune 0; mib 2." in text
    assert {name: row.seeds for name, row in with_more_seeds(table, [1, 0]).rows.items()} == {
        "finetune": (0, 1),
        "mib": (0, 1, 2),
    }


def test_every_row_names_a_recipe_and_has_a_folder_of_its_own(tmp_path):
    assert len(TABLE.rows) == sum(map(len, TABLE.sections.values()))
    assert len(cells_of(TABLE.rows, [], tmp_path)) == 3 * len(TABLE.rows)
    assert all(next(iter(rows)).endswith("finetune") for rows in TABLE.sections.values())
    assert list(TABLE.sections["Methods"])[-1] == "joint"


# --- what a folder holds


def only_cell(out: Path, *overrides: str) -> Cell:
    return cells_of({"mib": table_of(0).rows["mib"]}, [*SMALL, *overrides], out)[0]


def test_a_begun_run_goes_on_and_one_of_another_recipe_begins_anew(tmp_path):
    cell = only_cell(tmp_path)
    begin(cell)
    cell.run.write_text("summary.json", "{}")
    begin(cell)
    assert cell.finished
    changed = only_cell(tmp_path, "training.lr=0.5")
    assert not changed.finished
    begin(changed)
    assert changed.begun
    assert not changed.finished
    assert [path.name for path in cell.folder.parent.iterdir()] == ["0"]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path):
    cell = only_cell(tmp_path)
    cell.folder.mkdir(parents=True)
    (cell.folder / "letter.txt").write_text("dear")
    with pytest.raises(ContsegError, match="contains no run"):
        tasks_of([cell])
    with pytest.raises(ContsegError, match="contains no run"):
        begin(cell)
    assert (cell.folder / "letter.txt").is_file()


# --- the page


def result(old: float, new: float | None = 5.0, plan: str = "p1", scenario: str = "5-1") -> Result:
    figures = {"old": old, "new": new, "all": 7.0, "forgetting": 40.0}
    return Result(figures, 60.0, plan, scenario, "Python 3", ("a machine",), ("abc1234",))


def rows_of(text: str) -> dict[str, list[str]]:
    """The first table of figures: label to cells."""
    table = text.partition("| method |")[2].partition("\n\n")[0]
    return {
        cells[1].strip(): [cell.strip() for cell in cells[2:-1]]
        for cells in (line.split("|") for line in table.split("\n")[2:])
    }


def test_figures_are_means_and_sample_deviations_and_single_runs_have_none():
    results = {("finetune", "0"): result(1.0), ("finetune", "1"): result(3.0), ("mib", "0"): result(31.25, None)}
    text = page(table_of(0, 1, 2), results, seconds=120)
    assert rows_of(text) == {
        "finetune": ["2.0 ± 1.4", "5.0 ± 0.0", "7.0 ± 0.0", "40.0 ± 0.0", "-", "2"],
        "MiB": ["31.2", "-", "7.0", "40.0", "+30.2", "1"],
    }
    assert "3 of 6 finished" in text
    assert "2 min of wall-clock time, 3 min of one core" in text
    assert "Not finished (seeds): finetune 2; mib 1, 2." in text


def test_differences_are_between_runs_of_one_seed():
    results = {("finetune", "0"): result(1.0), ("mib", "0"): result(2.0), ("mib", "1"): result(90.0)}
    text = page(table_of(0, 1), results)
    assert rows_of(text)["MiB"][4:] == ["+1.0 (n = 1)", "2"]
    assert "not above" not in text


def test_rows_that_gain_nothing_are_named():
    results = {("finetune", "0"): result(1.0), ("mib", "0"): result(1.0)}
    assert "Mean of old classes not above that of finetune: MiB." in page(table_of(0), results)


def test_a_page_of_nothing_has_dashes():
    text = page(table_of(0), {}, ["training.lr=0.5"])
    assert rows_of(text)["MiB"] == ["-", "-", "-", "-", "-", "0"]
    assert "every recipe with `training.lr=0.5`" in text


def test_a_figure_that_was_not_measured_is_a_dash_and_the_page_says_why():
    one = result(1.0)
    unmeasured = replace(one, figures={**one.figures, "forgetting": None}, notes={"forgetting": "not measured, one step"})
    text = page(table_of(0), {("finetune", "0"): one, ("mib", "0"): unmeasured})
    assert rows_of(text)["MiB"][3] == "-"
    assert "MiB: forgetting: not measured, one step." in text


def test_runs_of_one_scenario_with_different_plans_are_a_warning():
    fine = {("finetune", "0"): result(1.0), ("joint", "0"): result(1.0, plan="p2", scenario="offline")}
    assert plan_warnings(fine) == []
    assert "**Warning**" not in page(table_of(0), fine)
    mixed = fine | {("mib", "0"): result(1.0, plan="p3")}
    assert plan_warnings(mixed) == ["runs of one scenario differ in their plans: p1: finetune (0); p3: mib (0)"]
    assert "**Warning**: runs of one scenario" in page(table_of(0), mixed)


def test_notes_are_kept_when_the_page_is_written_again(tmp_path):
    path, noted = tmp_path / "page.md", "\nMiB forgets less, see *here*.\n\n* and there\n"
    assert kept_notes(path) == "\n"
    path.write_text(page(table_of(0), {}, notes=noted))
    assert kept_notes(path) == noted
    path.write_text(page(table_of(0), {("mib", "0"): result(9.0)}, notes=kept_notes(path)))
    assert kept_notes(path) == noted


@pytest.mark.parametrize(
    "text", ["mine", "<!-- notes --> mine", "mine <!-- /notes -->", "<!-- /notes --> mine <!-- notes -->"]
)
def test_a_page_with_broken_marks_is_not_written_over(tmp_path, text):
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(ContsegError, match="so that no note is lost"):
        kept_notes(tmp_path / "page.md")


def test_options_are_checked(capsys):
    with pytest.raises(ContsegError, match="--rows: unknown row 'mob'; did you mean 'mib'"):
        chosen_rows(TABLE.rows, "finetune,mob")
    with pytest.raises(SystemExit):
        parsed(TABLE, ["--jobs", "0"])
    assert "--jobs: give 1 or more" in capsys.readouterr().err
    assert parsed(TABLE, ["--seeds", "0", "training.lr=0.5", "--only-table"]).overrides == ["training.lr=0.5"]


# --- the command


def table(folder: Path, *options: str) -> subprocess.Popen:
    words = ["--rows", "finetune,mib", "--seeds", "0", "--out", str(folder / "runs"), "--docs", str(folder / "page.md")]
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.digits_table", *words, *options, *SMALL],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: subprocess.Popen, code: int = 0) -> str:
    said, errors = process.communicate(timeout=300)
    assert process.returncode == code, said + errors
    return said


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A table of two runs that nothing disturbed, and what the command said."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, ended(table(folder))


def run_of(folder: Path, row: str) -> Run:
    return Run(folder / "runs" / row / "0")


def unfinished(folder: Path) -> set[str]:
    """Rows and seeds that the page says are missing."""
    said = (folder / "page.md").read_text().partition("Not finished (seeds): ")[2].partition(".\n")[0]
    return set(said.split("; "))


def written(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (folder / "runs").rglob("metrics.jsonl")
    return {str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@pytest.mark.slow
def test_runs_are_trained_side_by_side_and_share_step_0(whole):
    folder, said = whole
    assert "(2 of 2)" in said
    assert same(*(weights(run_of(folder, row), step=0) for row in ROWS))
    assert len(list((folder / "runs" / "cache").iterdir())) == 1
    first, second = (run_of(folder, row).metrics()[0] for row in ROWS)
    assert first == second  # seconds too: the second run tells of the first one's epoch
    shown = rows_of((folder / "page.md").read_text())
    for name, row in ROWS.items():
        figures = run_of(folder, name).summary()
        assert shown[row.label][:2] == [f"{figures['old']:.1f}", f"{figures['new']:.1f}"]


@pytest.mark.slow
def test_finished_runs_are_not_trained_again_and_notes_stay(whole, tmp_path):
    folder = tmp_path / "table"
    shutil.copytree(whole[0], folder)
    page_ = folder / "page.md"
    page_.write_text(page_.read_text().replace("<!-- notes -->\n", "<!-- notes -->\nMine.\n").replace("| MiB |", "| ? |"))
    before = written(folder)
    ended(table(folder))
    assert written(folder) == before
    assert "<!-- notes -->\nMine.\n<!-- /notes -->" in page_.read_text()
    assert "| MiB |" in page_.read_text()


@pytest.mark.slow
def test_a_table_that_is_killed_goes_on_to_the_same_bits(whole, tmp_path):
    process, run = table(tmp_path), run_of(tmp_path, "finetune")
    deadline = time.monotonic() + 200
    while not any(line["step"] == 2 for line in run.metrics()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert run.summary() is None
    ended(table(tmp_path))
    for row in ROWS:
        mine, theirs = run_of(tmp_path, row), run_of(whole[0], row)
        assert lines(mine) == lines(theirs)
        assert same(weights(mine, 5), weights(theirs, 5))
        assert {**mine.summary(), "seconds": 0} == {**theirs.summary(), "seconds": 0}


@pytest.mark.slow
def test_a_run_that_stops_does_not_stop_the_others(whole, tmp_path):
    folder = tmp_path / "table"
    shutil.copytree(whole[0], folder)
    last = {row: run_of(folder, row).step_folder(5) for row in ROWS}
    for row in ROWS:
        (run_of(folder, row).folder / "summary.json").unlink()
    shutil.rmtree(last["finetune"])
    last["finetune"].touch()  # in the place of the folder that the run needs
    (last["mib"] / "state.pt").write_bytes(b"damaged")
    said = ended(table(folder), code=1)
    assert f"not finished: finetune, seed 0: {last['finetune']}: cannot be written" in said
    assert run_of(folder, "mib").summary()
    assert {"finetune 0, 1, 2", "mib 1, 2"} <= unfinished(folder)
    last["finetune"].unlink()
    before = written(folder)["runs/mib/0/metrics.jsonl"]
    ended(table(folder))
    assert lines(run_of(folder, "finetune")) == lines(run_of(whole[0], "finetune"))
    assert written(folder)["runs/mib/0/metrics.jsonl"] == before


@pytest.mark.slow
def test_a_row_that_changed_is_trained_anew(whole, tmp_path):
    folder = tmp_path / "table"
    shutil.copytree(whole[0], folder)
    said = ended(table(folder, "training.lr_later=0.5", "--rows", "mib"))
    assert "mib, seed 0: old" in said
    rates = [lines(run_of(place, "mib"), "epoch")[1]["lr"] for place in (folder, whole[0])]
    assert rates[0] > rates[1]
    assert {"finetune 0, 1, 2", "mib 1, 2"} <= unfinished(folder)  # finetune's run is no longer of this recipe
