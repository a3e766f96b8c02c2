"""Runs on panoptic data: what a step keeps of the quality of segments, and where it is shown."""

import json

import numpy as np
import pytest

from contseg.cli.console import console, summary_table
from contseg.cli.table import print_table
from contseg.engine.own_loop import evaluation_batches
from contseg.engine.panoptic_sums import panoptic_of, panoptic_sums
from contseg.engine.run import Run
from contseg.evaluation.panoptic import PanopticCounts, evaluate_segments, panoptic_figures
from contseg.evaluation.segments import predict_segments, segment_map
from contseg.interop.segmenter_file import load_segmenter
from contseg.recipes.build import make_scenario
from contseg.report.page import write_report
from tests.engine.runs import learn, lines
from tests.panoptic_runs import saved, toy_recipe
from tests.trees.toy_panoptic import ToyPanoptic


@pytest.fixture(scope="module")
def sure(toy_data, tmp_path_factory) -> Run:
    """Two steps from a network that is sure of its segments; its weights hardly move."""
    folder = tmp_path_factory.mktemp("sure")
    start = saved(folder / "start.safetensors", ToyPanoptic.classes.subset([0, 1, 2, 3]))
    return learn(folder / "run", toy_recipe(toy_data, f"start_from={str(start)!r}", "training.lr_later=1e-9"))


@pytest.fixture(scope="module")
def pixels(toy_data, tmp_path_factory) -> Run:
    """A network that decides pixels, on the same data."""
    network = "network={backbone: {name: resnet18, width: 4}, head: deeplabv3-mib}"
    return learn(tmp_path_factory.mktemp("pixels") / "run", toy_recipe(toy_data, network))


def test_a_step_keeps_the_sums_and_the_figures_follow_from_them(sure):
    counts, things = panoptic_sums(sure)
    assert things.tolist() == [False, False, False, True, True, True]
    for line, one, seen in zip(lines(sure, "step"), counts, (4, 6), strict=True):
        kept = line["panoptic"]
        assert len(kept["sums"]["iou"]) == seen
        figures = panoptic_figures(one, sure.groups(), things[:seen], background=True)
        assert {key: kept[key] for key in figures} == json.loads(json.dumps(figures))
    last = panoptic_of(sure)
    assert last is not None
    summary = sure.summary()
    for name in ("pq", "sq", "rq"):
        for group in ("old", "new", "things", "stuff", "all"):
            value = last[name][group]
            assert summary[name][group] == (None if value is None else round(100 * value, 4))


def test_the_sums_are_those_of_a_pass_of_its_own(sure, toy_data):
    scenario, (counts, _) = make_scenario(toy_recipe(toy_data)), panoptic_sums(sure)
    for step, kept in zip(scenario, counts, strict=True):
        segmenter, classes = load_segmenter(sure.segmenter_path(step.index))
        segmenter.eval()

        def segments(batch, segmenter=segmenter, classes=classes):
            return [segment_map(one) for one in predict_segments(segmenter, batch.images, classes)]

        again = evaluate_segments(segments, evaluation_batches(step), step.table)
        np.testing.assert_array_equal(again.array(), kept.array())
        assert again.array()[1].any(), "something was predicted"


def test_a_network_that_decides_pixels_has_no_sums(pixels):
    assert all("panoptic" not in line for line in lines(pixels, "step"))
    assert panoptic_of(pixels) is None
    assert "pq" not in pixels.summary()


def test_sums_survive_a_file(sure):
    for one in panoptic_sums(sure)[0]:
        again = PanopticCounts.of_json(json.loads(json.dumps(one.as_json())))
        np.testing.assert_array_equal(again.array(), one.array())


def test_the_tables_show_it_beside_a_dash_where_it_was_not_measured(sure, pixels, tmp_path):
    with console.capture() as shown:
        console.print(summary_table({"masks": sure.summary(), "pixels": pixels.summary()}))
    assert "PQ old" in " ".join(shown.get().split()) or "PQ" in shown.get()
    out = tmp_path / "table.md"
    with console.capture():
        print_table([sure.folder, pixels.folder], out)
    rows = [line for line in out.read_text().splitlines() if line.startswith("| ")]
    assert rows[0] == "| run | background | old | new | all | PQ old | PQ new | PQ all | SQ | RQ | source |"
    quality = panoptic_of(sure)["pq"]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1:]]
    assert cells[0][5:8] == [f"{100 * quality[key]:.1f}" for key in ("old", "new", "all")]
    assert cells[1][5:10] == ["-"] * 5


def test_a_table_of_pixels_alone_has_no_such_columns(pixels, tmp_path):
    with console.capture():
        print_table([pixels.folder], tmp_path / "table.csv")
    assert "pq" not in (tmp_path / "table.csv").read_text().splitlines()[0]


def test_the_report_has_means_classes_and_pictures(sure, pixels, tmp_path):
    page = write_report([sure.folder, pixels.folder], tmp_path / "report.html").read_text()
    assert '<h2 id="panoptic">' in page
    assert page.count('alt="true segments"') == 4
    assert page.count("segments of run") + page.count("segments of sure") >= 8, "four images after two steps"
    section = page[page.index('<h2 id="panoptic">') :]
    assert f"{100 * panoptic_of(sure)['pq']['all']:.1f}" in section
    assert section.count("<td>thing</td>") == 3
    assert section.count("<td>stuff</td>") == 2
    plain = write_report(pixels.folder, tmp_path / "pixels.html").read_text()
    assert 'id="panoptic"' not in plain


def test_masks_of_the_teacher_are_counted_in_each_epoch_and_drawn(toy_data, tmp_path):
    start = saved(tmp_path / "start.safetensors", ToyPanoptic.classes.subset([0, 1, 2, 3]))
    changes = (f"start_from={str(start)!r}", "training.lr_later=1e-9", "method={name: plop-masks}")
    run = learn(tmp_path / "run", toy_recipe(toy_data, *changes))
    *first, last = lines(run, "epoch")
    assert not any("pseudo" in line for line in first), "step 0 has no teacher"
    assert set(last["pseudo"]) <= set(ToyPanoptic.classes.names[1:4]), "old classes"
    assert 0 < sum(last["pseudo"].values()) <= 1
    origins = run.arrays("steps/01/label_origins.npz")
    changed = [origins[f"final{number}"][origins[f"final{number}"] != origins[f"given{number}"]] for number in range(4)]
    assert set(np.concatenate(changed).tolist()) <= {1, 2, 3}
    assert sum(map(len, changed))
    assert (
        'alt="share of pixels per pseudo label and epoch"' in write_report(run.folder, tmp_path / "report.html").read_text()
    )
