"""The page of a sweep."""

import numpy as np
import pytest

from contseg.errors import ContsegError
from contseg.sweeps.outcomes import read_outcomes
from contseg.sweeps.report import class_curves, class_rows, order_tables, write_sweep_report
from contseg.sweeps.results import sheets
from contseg.sweeps.sweep import Sweep
from tests.report.pages import Page
from tests.sweeps.finished import NAMES, finished_sweep


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("page")
    finished_sweep(made, Sweep(recipes=["digits/mib_5-1", "digits/plop_5-1"], seeds=2, orders=2, beside=["joint"]))
    return made


@pytest.fixture(scope="module")
def page(folder):
    return Page(write_sweep_report(folder).read_text(encoding="utf-8"))


def test_it_has_the_tables_of_the_command_line(folder, page):
    for sheet in sheets(read_outcomes(folder)):
        assert [list(sheet.columns), *map(list, sheet.rows)] in page.tables


def test_it_is_one_file_with_every_section_and_drawings_for_light_and_dark_pages(page):
    assert page.title == "contseg: sweep of digits/mib_5-1, digits/plop_5-1"
    assert set(page.anchors) <= set(page.ids)
    assert {"results", "curves", "differences", "costs", "classes", "orders"} <= set(page.ids)
    assert len(page.images) == 5
    assert all(reference.startswith("data:") for reference in page.references)


def test_names_of_classes_are_text(folder, page):
    (rows,) = [table for table in page.tables if table[0] == ["class", "digits/mib_5-1", "digits/plop_5-1", "joint"]]
    assert [row[0] for row in rows[1:]] == NAMES


def test_a_class_has_its_mean_over_all_runs_and_over_the_seeds_of_each_order(folder):
    outcomes = read_outcomes(folder)
    found = outcomes.of("digits-plop_5-1")
    values = [one.iou["cat"] / 100 for one in found.values()]
    cell = class_rows(outcomes)["cat"][1]
    assert (cell["mean"], cell["deviation"]) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    table = order_tables(outcomes)["digits/plop_5-1"]
    own = np.mean([one.iou["bird"] / 100 for (_, order), one in found.items() if order == "natural"])
    assert table["orders"] == ["natural", "seed:1"]
    assert table["rows"]["bird"][0] == {
        "mean": pytest.approx(own),
        "step": 2,
        "deviation": table["rows"]["bird"][0]["deviation"],
    }


def test_a_file_of_the_user_is_kept(folder, tmp_path):
    (tmp_path / "mine.html").write_text("mine")
    with pytest.raises(ContsegError, match="exists"):
        write_sweep_report(folder, tmp_path / "mine.html")


def test_a_class_has_a_curve_per_method_over_the_steps_in_which_it_is_known(folder, page):
    outcomes = read_outcomes(folder)
    curves = class_curves(outcomes)
    assert list(curves) == NAMES
    runs = outcomes.of("digits-mib_5-1").values()
    first = np.mean([run.iou_series["cat"][0] for run in runs]) / 100
    assert curves["cat"][0].startswith(f"M0 {40 * (1 - first):.4g}L50 ")
    assert curves["bird"][0].startswith("M100 ")  # added by the last step
    assert curves["bird"][2].startswith("M0 ")  # joint training: a horizontal line
    for run in runs:
        assert [series[-1] for series in run.iou_series.values()] == pytest.approx(list(run.iou.values()))


def test_a_class_that_was_never_measured_has_no_curve_and_a_dash(tmp_path):
    runs = finished_sweep(tmp_path, Sweep(recipes=["digits/mib_5-1"], seeds=1))
    for step in range(3):
        path = f"steps/{step:02d}/confusion.npz"
        arrays = dict(runs[0].arrays(path))
        arrays["confusion"][1], arrays["confusion"][:, 1] = 0, 0
        runs[0].save_arrays(path, **arrays)
    assert class_curves(read_outcomes(tmp_path))["cat"] == [""]
    page = Page(write_sweep_report(tmp_path).read_text(encoding="utf-8"))
    assert ["cat", "–"] in next(table for table in page.tables if table[0][0] == "class")
