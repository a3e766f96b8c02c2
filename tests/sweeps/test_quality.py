"""Panoptic quality in the tables and on the pages of a sweep."""

import csv
import json

import numpy as np
import pytest

from contseg.cli.console import console
from contseg.cli.sweep import result_table
from contseg.cli.sweep_table import print_sweep_table
from contseg.sweeps.outcomes import QUALITY, read_outcomes
from contseg.sweeps.page import Page as Texts
from contseg.sweeps.page import page, read_results
from contseg.sweeps.report import write_sweep_report
from contseg.sweeps.results import sheets
from contseg.sweeps.sweep import Sweep
from tests.report.pages import Page
from tests.sweeps.finished import GROUPS, finished_sweep, measure_segments

MIB, PLOP, FROZEN = ("digits/mib_5-1", "digits/plop_5-1", "digits/frozen_5-1")
SWEEP = Sweep(recipes=[MIB, PLOP, FROZEN], seeds=2, orders=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep in which the frozen network measured no segments, and PLOP did in all runs but one."""
    made = tmp_path_factory.mktemp("segments")
    runs = finished_sweep(made, SWEEP)
    measured = [run for run in runs if "frozen" not in str(run.folder)]
    for number, run in enumerate(measured[:-1]):
        measure_segments(run, number)
    assert "plop" in str(measured[-1].folder)
    return made


def sums(folder, row: str, seed: int, order: str) -> dict[str, np.ndarray] | None:
    """The sums after the last step, as the run recorded them."""
    name = str(seed) if order == "natural" else f"{seed},{order.replace(':', '-')}"
    lines = (folder / row.replace("/", "-") / name / "metrics.jsonl").read_text().splitlines()
    last = [line for line in map(json.loads, lines) if line["kind"] == "step"][-1]
    return {key: np.array(values) for key, values in last["panoptic"]["sums"].items()} if "panoptic" in last else None


def expected(folder, row: str, seed: int, order: str) -> dict[str, float] | None:
    """The definition: means over the classes of a group, without background."""
    if (found := sums(folder, row, seed, order)) is None:
        return None
    hits, wrong, missed, iou = (found[key] for key in ("true_positives", "false_positives", "false_negatives", "iou"))
    each = {"pq": iou / (hits + wrong / 2 + missed / 2), "sq": iou / hits, "rq": hits / (hits + wrong / 2 + missed / 2)}
    groups = np.array(GROUPS)
    groups[0] = -1
    inside = {"old": groups == 0, "new": groups > 0, "all": groups >= 0}
    return {f"{key}_{name}": 100 * values[where].mean() for key, values in each.items() for name, where in inside.items()}


def all_of(folder, row: str) -> dict[tuple[int, str], dict[str, float]]:
    places = [(seed, order) for seed in range(2) for order in ("natural", "seed:1", "seed:2")]
    return {place: found for place in places if (found := expected(folder, row, *place)) is not None}


@pytest.fixture(scope="module")
def lines(folder):
    """The lines of the CSV."""
    out = folder.parent / f"{folder.name}.csv"
    print_sweep_table(folder, out)
    return list(csv.DictReader(out.open()))


@pytest.mark.parametrize("key", QUALITY)
def test_means_and_deviations_are_those_of_the_recorded_sums(folder, lines, key):
    for row, runs in ((MIB, 6), (PLOP, 5)):
        values = {place: found[key] for place, found in all_of(folder, row).items()}
        (mean,) = [line for line in lines if (line["kind"], line["method"], line["quantity"]) == ("mean", row, key)]
        assert (float(mean["value"]), mean["runs"]) == (pytest.approx(np.mean(list(values.values()))), str(runs))
        orders = {order: [value for (_, one), value in values.items() if one == order] for _, order in values}
        within = sum(np.var(group) * len(group) for group in orders.values())
        freedom = sum(len(group) - 1 for group in orders.values())
        assert float(mean["std_over_seeds"]) == pytest.approx(np.sqrt(within / freedom))
        assert float(mean["std_over_orders"]) == pytest.approx(np.std([np.mean(group) for group in orders.values()], ddof=1))
    (none,) = [line for line in lines if (line["kind"], line["method"], line["quantity"]) == ("mean", FROZEN, key)]
    assert (none["value"], none["runs"]) == ("", "0")


@pytest.mark.parametrize("key", ["pq_old", "pq_new", "pq_all"])
def test_differences_are_paired(folder, lines, key):
    found = [line for line in lines if (line["kind"], line["quantity"]) == ("difference", key)]
    mine, base = all_of(folder, PLOP), all_of(folder, MIB)
    wanted = np.mean([mine[place][key] - base[place][key] for place in mine])
    assert [(line["method"], line["against"], line["pairs"]) for line in found] == [(PLOP, MIB, "5")]
    assert float(found[0]["value"]) == pytest.approx(wanted)


def test_the_sheet_has_a_dash_where_nothing_was_measured(folder):
    *_, sheet = sheets(read_outcomes(folder))
    assert (sheet.title, list(sheet.columns)) == ("Panoptic quality", ["method", *QUALITY.values()])
    assert [row[0] for row in sheet.rows] == [MIB, "± 2 seeds", "± 3 orders", PLOP, "± 2 seeds", "± 3 orders", FROZEN]
    assert list(sheet.rows[-1][1:]) == ["–"] * 9
    assert sheet.rows[0][3] == f"{np.mean([found['pq_all'] for found in all_of(folder, MIB).values()]):.1f}"
    assert any(note.startswith(f"{PLOP}: of 6 runs, PQ old in 5, PQ new in 5") for note in sheet.notes)
    assert not any(note.startswith((MIB, FROZEN)) for note in sheet.notes)


def test_a_sweep_without_segments_has_no_such_sheet_or_line(tmp_path):
    finished_sweep(tmp_path, Sweep(recipes=[MIB, PLOP], seeds=1))
    print_sweep_table(tmp_path, out := tmp_path / "table.csv")
    assert "Panoptic quality" not in [sheet.title for sheet in sheets(read_outcomes(tmp_path))]
    assert not {line["quantity"] for line in csv.DictReader(out.open())} & set(QUALITY)


def test_the_terminal_needs_80_columns(folder):
    width, console.width = console.width, 80
    try:
        with console.capture() as capture:
            print_sweep_table(folder)
    finally:
        console.width = width
    text = capture.get()
    assert [line for line in text.splitlines() if len(line) > 80 or "…" in line] == []
    assert [line for line in text.splitlines() if line.startswith(PLOP) and line.count(".") == 9], "numbers beside the label"


def test_the_page_of_a_sweep_has_the_table(folder):
    page = Page(write_sweep_report(folder).read_text(encoding="utf-8"))
    *_, sheet = sheets(read_outcomes(folder))
    assert [list(sheet.columns), *map(list, sheet.rows)] in page.tables
    assert "segments" in page.ids


def test_so_has_its_markdown_page(folder):
    cells = SWEEP.cells(folder)
    texts = Texts("contseg sweep x", "Sweep", "Old: the classes of step 0.", {"Results": SWEEP.rows()})
    text = page(texts, read_results(cells))
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    at = next(number for number, line in enumerate(lines) if line[1:2] == ["PQ old"])
    assert lines[at] == ["method", *QUALITY.values(), f"PQ old, against {MIB}", "n"]
    mine, base = all_of(folder, PLOP), all_of(folder, MIB)
    values = [found["sq_all"] for found in mine.values()]
    plop = dict(zip(lines[at], lines[at + 2], strict=True))
    assert plop["SQ all"] == f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    gains = [mine[place]["pq_old"] - base[place]["pq_old"] for place in mine]
    assert plop[f"PQ old, against {MIB}"] == f"{np.mean(gains):+.1f} ± {np.std(gains, ddof=1):.1f}"
    assert [line[-1] for line in lines[at + 1 : at + 4]] == ["6", "5", "0"]
    assert set(lines[at + 3][1:-1]) == {"-"}


def test_so_has_the_table_that_ends_a_sweep(folder, tmp_path):
    with console.capture() as capture:
        console.print(result_table(SWEEP.rows(), read_results(SWEEP.cells(folder))))
    text = capture.get()
    values = [found["pq_all"] for found in all_of(folder, MIB).values()]
    assert "PQ all" in text
    assert f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}" in text


def test_published_quality_is_next_to_the_mean_of_the_runs(tmp_path):
    name = "ade20k-panoptic/plop-masks_100-10_overlapped"
    for number, run in enumerate(finished_sweep(tmp_path, Sweep(recipes=[name], seeds=2, overrides=["data.path=x"]))):
        measure_segments(run, number)
    print_sweep_table(tmp_path, out := tmp_path / "table.md")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in out.read_text().splitlines()]
    own = np.mean([expected(tmp_path, name, seed, "natural")["pq_old"] for seed in range(2)])
    (mean,) = [row for row in rows if row[0] == f"{name}, mean of 2 seeds"]
    assert mean[5] == f"{own:.1f}"
    (quoted,) = [row for row in rows if row[0].startswith("quoted")]
    assert quoted[2:6] == ["-", "-", "-", f"37.7 ({own - 37.7:+.1f})"]
