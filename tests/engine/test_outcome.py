"""What a run leaves: everything that it says can be recomputed from its folder."""

import json
from datetime import datetime

import numpy as np
import pytest

from contseg.data.files import read_image
from contseg.engine.summary import summarise
from contseg.evaluation.metrics import run_figures
from contseg.evaluation.predict import predict_image
from contseg.interop.segmenter_file import load_segmenter
from contseg.recipes.build import make_scenario
from contseg.recipes.read import read_recipe
from tests.engine.runs import Guessing, learn, lines, tiny_recipe

FIGURES = (
    "old", "new", "all", "average", "forgetting", "harmonic",
    "old_with_background", "all_with_background", "average_with_background", "accuracy",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    recipe = tiny_recipe("mib", "scenario.split=5-3-2", "scenario.order=seed:3")  # ids are not positions
    return learn(tmp_path_factory.mktemp("outcome") / "run", recipe, method=Guessing())


def test_the_summary_holds_every_figure(run):
    summary = run.summary()
    assert set(FIGURES) | {"measured", "pixels", "notes", "seconds", "steps", "plan"} == set(summary)
    there = sum(value is not None for value in lines(run, "step")[-1]["iou"][1:])
    assert summary["measured"]["all"] == [there, 10]
    assert summary["notes"]["all"].startswith(f"over {there} of 10 classes")  # a small test set
    assert summary["steps"] == 3
    assert summary["seconds"] > 0
    assert all(0 < abs(summary[name]) < 100 for name in FIGURES)  # a guess is never quite right or quite wrong


def test_the_summary_is_recomputable_from_the_confusion_matrices(run):
    figures = run_figures(run.confusions(), run.groups())
    for name in FIGURES:
        assert run.summary()[name] == pytest.approx(100 * figures[name], abs=1e-4), name
    assert summarise(run) == run.summary()


def test_the_figures_are_what_their_names_say(run):
    """By hand, from IoU per class."""
    ious = []
    for confusion in run.confusions():
        hits, union = np.diag(confusion), confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
        ious.append(np.where(confusion.sum(1) > 0, hits / np.maximum(union, 1), np.nan))
    summary, last = run.summary(), ious[-1]
    expected = {
        "old": np.nanmean(last[1:6]),
        "new": np.nanmean(last[6:]),
        "all": np.nanmean(last[1:]),
        "all_with_background": np.nanmean(last),
        "average": np.mean([np.nanmean(iou[1:]) for iou in ious]),
        "forgetting": np.nanmean(
            [np.fmax.reduce([iou[k] for iou in ious[:-1] if k < len(iou)]) - last[k] for k in range(1, 9)]
        ),
    }
    for name, value in expected.items():
        assert summary[name] == pytest.approx(100 * value, abs=1e-3), name


def test_a_confusion_matrix_counts_the_predictions_of_the_saved_segmenter(run):
    scenario = make_scenario(read_recipe(run.folder / "recipe.yaml"))
    for step, confusion in enumerate(run.confusions()):
        segmenter, _ = load_segmenter(run.segmenter_path(step))
        test, count = scenario[step].test, scenario[step].seen_count
        recounted = np.zeros((count, count), dtype=int)
        for name in test.names:
            image, mask = test.dataset.read(name)
            truth, said = test.lookup[mask], predict_image(segmenter, image)
            np.add.at(recounted, (truth[truth < count], said[truth < count]), 1)
        assert np.array_equal(recounted, confusion)


def test_there_is_a_line_for_every_epoch_and_every_step(run):
    found = [(line["kind"], line["step"], line.get("epoch")) for line in run.metrics()]
    assert found == [
        entry for step in range(3) for entry in [*(("epoch", step, epoch) for epoch in range(2)), ("step", step, None)]
    ]
    for line in run.metrics():
        assert line["seconds"] >= 0
        if line["kind"] == "epoch":
            assert line["images_per_second"] > 0
            assert line["loss"] == pytest.approx(sum(line["terms"].values()))
    assert [set(line["terms"]) for line in lines(run, "epoch")][::2] == [
        {"cross_entropy"},
        {"cross_entropy", "distillation"},
        {"cross_entropy", "distillation"},
    ]


def test_the_segmenters_grow_and_carry_their_classes(run):
    for step, count in enumerate((6, 9, 11)):
        segmenter, classes = load_segmenter(run.segmenter_path(step))
        assert sum(segmenter.widths) == len(classes) == count
        assert classes.ids == make_scenario(read_recipe(run.folder / "recipe.yaml")).order[:count]
        assert not segmenter.training


def test_samples_hold_image_truth_and_a_prediction_after_every_step(run):
    samples = np.load(run.folder / "samples.npz")
    assert samples["drawn"].tolist() == [False] * 6 + [True] * 6
    assert len(set(samples["names"])) == 12
    scenario = make_scenario(read_recipe(run.folder / "recipe.yaml"))
    dataset, outputs = scenario.dataset, np.argsort(scenario.order)
    for number, name in enumerate(samples["names"]):
        assert np.array_equal(samples[f"image{number}"], read_image(dataset.image_path(str(name))))
        assert np.array_equal(samples[f"truth{number}"], outputs[dataset.read(str(name))[1]])
        for step in range(3):
            segmenter, _ = load_segmenter(run.segmenter_path(step))
            with np.load(run.folder / "steps" / f"{step:02d}" / "predictions.npz") as saved:
                assert np.array_equal(saved[f"prediction{number}"], predict_image(segmenter, samples[f"image{number}"]))
                for kind in ("entropy", "margin"):
                    assert saved[f"{kind}{number}"].shape == samples[f"truth{number}"].shape  # small enough already
                    assert saved[f"{kind}{number}"].dtype == np.uint8


def test_the_plan_names_what_every_result_was_made_of(run):
    plan = json.loads((run.folder / "plan.json").read_text())
    assert plan["hash"] == run.summary()["plan"]
    assert [len(step["new_classes"]) for step in plan["steps"]] == [6, 3, 2]


def test_the_environment_is_written_down(run):
    environment = json.loads((run.folder / "environment.json").read_text())
    assert {"contseg", "commit", "python", "torch", "numpy", "system", "device", "ranks"} <= environment.keys()
    assert datetime.fromisoformat(environment["date"]).tzinfo is not None


def test_the_same_recipe_gives_the_same_run(run, tmp_path):
    again = learn(tmp_path / "again", read_recipe(run.folder / "recipe.yaml"), method=Guessing())
    assert lines(again) == lines(run)


def test_a_step_records_what_it_cost(run):
    for line in (line for line in run.metrics() if line["kind"] == "step"):
        segmenter, _ = load_segmenter(run.segmenter_path(line["step"]))
        state = run.load_state(line["step"])
        assert line["trained_parameters"] == sum(parameter.numel() for parameter in segmenter.parameters())
        assert line["stored_bytes"] == sum(tensor.nbytes for tensor in state.method.values())
        assert line["peak_memory"] > 1e7  # PyTorch alone takes more
