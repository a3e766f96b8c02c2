"""What the picture of a plan and its table on the page show."""

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest

from contseg.report.plan_map import draw_plan
from contseg.report.tables import LEVELS, domain_tables, plan_tables
from tests.report.pages import made_run


def plan_of(folder, names, groups):
    return json.loads((made_run(folder, names, groups).folder / "plan.json").read_text())


@pytest.mark.parametrize("count", [11, 60, 61, 151])
def test_the_picture_names_every_class_without_overlap(tmp_path, count):
    names = ["background", *(f"class {number}" for number in range(1, count))]
    figure = draw_plan(plan_of(tmp_path / "run", names, [0] * (count - 1) + [1]))
    figure.draw_without_rendering()
    _, axis, *_ = figure.axes
    labels = axis.get_xticklabels()
    assert [label.get_text() for label in labels] == names
    height = labels[0].get_fontsize() * figure.dpi / 72
    places = axis.transData.transform([(number, 0) for number in range(count)])[:, 0]
    apart = np.diff(places).min() * np.sin(np.deg2rad(labels[0].get_rotation()))
    assert apart > height
    plt.close(figure)


@pytest.mark.parametrize("name", ["$x$", "$\\notacommand{$", "_hidden", "<b>"])
def test_the_picture_shows_names_literally(tmp_path, name):
    figure = draw_plan(plan_of(tmp_path / "run", ["background", name], [0, 1]))
    figure.savefig(tmp_path / "plan.svg")  # a formula would be read here
    shown = figure.axes[1].get_xticklabels()[1].get_text()
    assert shown.replace(r"\$", "$") == name
    plt.close(figure)


def test_the_table_frames_annotated_classes_and_shades_images_by_their_logarithm():
    step = {"new_classes": ["cat"], "train_holding": [99, 9, 0]}
    plan = {"class_names": ["background", "cat", "dog"], "steps": [step], "warnings": []}
    (table,) = plan_tables({"run": {"plan": plan}})
    cells = [row["steps"][0] for row in table["classes"]]
    assert [cell["images"] for cell in cells] == [99, 9, 0]
    assert [cell["shade"] for cell in cells] == [LEVELS, LEVELS // 2, 0]
    assert [cell["annotated"] for cell in cells] == [False, True, False]


def test_runs_of_the_same_domains_share_a_table_and_others_have_none():
    one = {"domains": ("bonn", "ulm"), "by_domain": np.array([[0.5, np.nan], [0.25, 1.0]])}
    runs = {"a": one, "b": {"domains": ()}, "c": one | {"by_domain": np.array([[0.75, np.nan]])}}
    (table,) = domain_tables(runs)
    assert list(table["runs"]) == ["a", "c"]
    bonn, ulm = table["rows"]
    assert [[cell["value"] for cell in run] for run in bonn["runs"]] == [[0.5, 0.25], [0.75]]
    assert [[cell["value"] for cell in run] for run in ulm["runs"]] == [[None, 1.0], [None]]
