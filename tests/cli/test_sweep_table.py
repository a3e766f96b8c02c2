"""`contseg table SWEEP`: every number is that of the confusion matrices."""

import csv
import re

import numpy as np
import pytest
from typer.testing import CliRunner

from contseg.cli.console import console
from contseg.cli.main import app
from contseg.cli.sweep_table import print_sweep_table
from contseg.errors import ContsegError
from contseg.manifest import Manifest
from contseg.sweeps.aggregate import RESAMPLES
from contseg.sweeps.outcomes import read_outcomes
from contseg.sweeps.results import sheets
from contseg.sweeps.sweep import Sweep
from tests.sweeps.finished import GROUPS, finished_sweep

SWEEP = Sweep(recipes=["digits/mib_5-1", "digits/plop_5-1"], seeds=2, orders=3, beside=["joint"])
MIB, PLOP, ORDERS = "digits-mib_5-1", "digits-plop_5-1", ("natural", "seed:1", "seed:2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("tabulated")
    finished_sweep(made, SWEEP)
    return made


@pytest.fixture(scope="module")
def lines(folder):
    """The lines of the CSV."""
    out = folder.parent / f"{folder.name}.csv"
    print_sweep_table(folder, out)
    return list(csv.DictReader(out.open()))


def matrix(folder, row: str, seed: int, order: str, step: int) -> np.ndarray:
    name = str(seed) if order == "natural" else f"{seed},{order.replace(':', '-')}"
    with np.load(folder / row / name / "steps" / f"{step:02d}" / "confusion.npz") as saved:
        return saved["confusion"]


def iou(confusion: np.ndarray) -> np.ndarray:
    """The definition, class by class."""
    values = []
    for number in range(len(confusion)):
        union = confusion[number].sum() + confusion[:, number].sum() - confusion[number, number]
        values.append(confusion[number, number] / union if confusion[number].sum() else np.nan)
    return 100 * np.array(values)


def expected(folder, row: str, seed: int, order: str) -> dict[str, float]:
    each = [iou(matrix(folder, row, seed, order, step)) for step in range(3)]
    last, groups = each[-1], np.array(GROUPS)
    old, new = np.nanmean(last[1:3]), np.nanmean(last[groups > 0])
    fallen = [np.nanmax([one[number] for one in each[:-1] if number < len(one)]) - last[number] for number in (1, 2, 3)]
    return {
        "old": old,
        "new": new,
        "all": np.nanmean(last[1:]),
        "harmonic": 2 * old * new / (old + new),
        "average": np.mean([np.nanmean(one[1:]) for one in each]),
        "forgetting": np.nanmean(fallen),
    }


def table_of(folder, row: str, key: str) -> np.ndarray:
    """Seeds x orders."""
    return np.array([[expected(folder, row, seed, order)[key] for order in ORDERS] for seed in range(2)])


def only(lines, **wanted) -> dict[str, str]:
    (line,) = [line for line in lines if all(line[key] == value for key, value in wanted.items())]
    return line


@pytest.mark.parametrize("key", ["old", "new", "all", "harmonic", "average", "forgetting"])
def test_every_number_is_recomputed_from_the_confusion_matrices(folder, lines, key):
    values = table_of(folder, MIB, key)
    for seed in range(2):
        for place, order in enumerate(ORDERS):
            run = only(lines, kind="run", method="digits/mib_5-1", seed=str(seed), order=order, quantity=key)
            assert float(run["value"]) == pytest.approx(values[seed, place])
    mean = only(lines, kind="mean", method="digits/mib_5-1", quantity=key)
    assert float(mean["value"]) == pytest.approx(values.mean())
    assert float(mean["std_over_seeds"]) == pytest.approx(np.sqrt(values.var(axis=0, ddof=1).mean()))
    assert float(mean["std_over_orders"]) == pytest.approx(values.mean(axis=0).std(ddof=1))
    assert (mean["seeds"], mean["orders"], mean["runs"]) == ("2", "3", "6")


def test_so_are_the_worst_order_and_the_share_of_joint(folder, lines):
    values = table_of(folder, MIB, "all")
    worst = only(lines, kind="worst order", method="digits/mib_5-1")
    assert (worst["order"], float(worst["value"])) == (
        ORDERS[values.mean(axis=0).argmin()],
        pytest.approx(values.mean(0).min()),
    )
    joint = [np.nanmean(iou(matrix(folder, "joint", seed, order, 0))[1:]) for seed in range(2) for order in ORDERS]
    share = only(lines, kind="share of joint", method="digits/mib_5-1")
    assert (float(share["value"]), share["pairs"]) == (pytest.approx(values.sum() / np.sum(joint)), "6")


def test_so_are_paired_differences_and_their_interval(folder, lines):
    found = only(lines, kind="difference", method="digits/plop_5-1", quantity="all")
    sample = (table_of(folder, PLOP, "all") - table_of(folder, MIB, "all")).ravel()  # by seed, then order
    drawn = np.random.default_rng(0).integers(0, 6, (RESAMPLES, 6))
    low, high = np.percentile(sample[drawn].mean(axis=1), [2.5, 97.5])
    assert float(found["value"]) == pytest.approx(sample.mean())
    assert (float(found["low"]), float(found["high"])) == (pytest.approx(low), pytest.approx(high))
    assert (found["against"], found["pairs"]) == ("digits/mib_5-1", "6")
    assert (found["verdict"] in ("better", "worse")) == (not low <= 0 <= high)


def test_costs_are_those_that_the_runs_recorded(lines):
    found = {key: only(lines, kind="mean", method="digits/mib_5-1", quantity=key)["value"] for key in (
        "seconds", "trained_parameters", "stored")}  # fmt: skip
    assert {key: float(value) for key, value in found.items()} == {"seconds": 180, "trained_parameters": 1234, "stored": 2}


def test_costs_that_were_not_recorded_are_dashes(tmp_path):
    runs = finished_sweep(tmp_path, Sweep(recipes=["digits/mib_5-1"], seeds=1))
    text = (runs[0].folder / "metrics.jsonl").read_text()
    runs[0].write_text("metrics.jsonl", re.sub(r', "(peak_memory|trained_parameters|stored_bytes)": [\d.]+', "", text))
    outcomes = read_outcomes(tmp_path)
    assert [list(row) for row in sheets(outcomes)[1].rows] == [["digits/mib_5-1", "1", "180.0", "–", "–", "–"]]


def test_unfinished_runs_are_counted_and_a_method_without_joint_has_a_dash(tmp_path):
    finished_sweep(tmp_path, Sweep(recipes=["digits/mib_5-1", "digits/plop_5-1"], seeds=2), left_out=1)
    means, _, differences = sheets(read_outcomes(tmp_path))
    assert "1 of 4 runs not finished" in means.notes
    assert [row[0] for row in means.rows] == ["digits/mib_5-1", "± 2 seeds", "digits/plop_5-1"]
    assert [row[-1] for row in means.rows] == ["–", "", "–"]
    assert {(row[3], row[4], row[5]) for row in differences.rows} == {("–", "1", "too few pairs")}


@pytest.mark.parametrize("name", ["summary.json", "recipe.yaml", "metrics.jsonl", "steps/01/confusion.npz"])
def test_a_damaged_run_is_named_and_left_out(tmp_path, name):
    finished_sweep(tmp_path, Sweep(recipes=["digits/mib_5-1"], seeds=2))
    place = tmp_path / MIB / "0" / name
    Manifest(tmp_path / MIB / "0").record(place)
    place.write_bytes(place.read_bytes()[:-1] + b"?")
    with console.capture() as capture:
        print_sweep_table(tmp_path)
    (warning,) = [line for line in capture.get().splitlines() if line.startswith(f"warning: {MIB}, seed 0 is left out: ")]
    assert place.name in warning
    assert "was written" in warning or "make it again with: contseg" in warning
    assert read_outcomes(tmp_path).of(MIB).keys() == {(1, "natural")}


def test_the_terminal_needs_80_columns(folder):
    width, console.width = console.width, 80
    try:
        with console.capture() as capture:
            print_sweep_table(folder / "sweep.yaml")
    finally:
        console.width = width
    text = capture.get()
    assert [line for line in text.splitlines() if len(line) > 80 or "…" in line] == []
    assert "± 3 orders" in text


def test_markdown_and_latex_contain_the_same_cells(folder, tmp_path):
    for suffix in (".md", ".tex"):
        print_sweep_table(folder, tmp_path / f"table{suffix}")
        print_sweep_table(folder, tmp_path / f"table{suffix}")  # its own file is replaced
    plain = (tmp_path / "table.md").read_text()
    booktabs = (tmp_path / "table.tex").read_text()
    assert booktabs.count(r"\toprule") == booktabs.count(r"\bottomrule") == plain.count("\n|---") == 3
    for row in sheets(read_outcomes(folder))[0].rows:
        assert f"| {' | '.join(row)} |" in plain
        cells = [cell.replace("_", r"\_").replace("±", r"$\pm$") for cell in row]
        assert f"{' & '.join(cells)} \\\\" in booktabs


def test_numbers_published_for_a_recipe_are_next_to_its_mean(tmp_path):
    sweep = Sweep(recipes=["voc/plop_15-1_overlapped"], seeds=2, overrides=["data.path=x"])
    finished_sweep(tmp_path, sweep)
    print_sweep_table(tmp_path, out := tmp_path / "table.md")
    assert "| voc/plop_15-1_overlapped, mean of 2 seeds | not counted |" in out.read_text()
    assert "PLOP repository, VOC table" in out.read_text()


@pytest.mark.parametrize(
    ("out", "problem"), [("table.xlsx", "unknown suffix '.xlsx'; use .md, .csv, .tex"), ("taken.md", "exists")]
)
def test_a_file_of_another_kind_is_refused(folder, tmp_path, out, problem):
    (tmp_path / "taken.md").write_text("my notes\n")
    with pytest.raises(ContsegError, match=problem):
        print_sweep_table(folder, tmp_path / out)


def test_a_sweep_without_a_finished_run_is_an_error(tmp_path):
    SWEEP.write(tmp_path)
    result = CliRunner().invoke(app, ["table", str(tmp_path)])
    assert isinstance(result.exception, ContsegError)
    assert "no run is finished yet" in str(result.exception)
