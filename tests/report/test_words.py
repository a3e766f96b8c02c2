"""The three sentences at the top of a report: what was learned, kept and lost."""

import numpy as np

from contseg.evaluation.metrics import class_forgetting, class_iou, run_figures, step_figures
from contseg.evaluation.remarks import run_remarks
from contseg.report.words import MOST, sentences

CLASSES, GROUPS = ["background", "cat", "dog", "bird", "cow"], (0, 0, 0, 1, 1)
BEFORE = np.diag([10, 10, 10])
AFTER = np.array([[10, 0, 0, 0, 0], [0, 5, 0, 5, 0], [0, 0, 10, 0, 0], [0, 0, 0, 10, 0], [0, 0, 0, 0, 10]])


def facts(*confusions: np.ndarray, groups=GROUPS) -> dict:
    return {
        "classes": CLASSES,
        "groups": groups,
        "background": True,
        "iou": [class_iou(each) for each in confusions],
        "fallen": class_forgetting(confusions),
        "figures": run_figures(confusions, groups),
        "remarks": run_remarks(confusions, groups),
        "series": {"old": [step_figures(each, groups)["old"] for each in confusions]},
    }


def test_a_run_has_a_sentence_each_with_its_metrics():
    assert sentences({"run": facts(BEFORE, AFTER)}) == {
        "learned": "2 classes after step 0; their mIoU at the end is 83.3 %, from bird with 66.7 % to cow with 100.0 %.",
        "kept": "The mIoU of the 2 classes of step 0 is 75.0 % at the end; after step 0 it was 100.0 %.",
        "lost": "25.0 points of IoU since their best, on average over 2 classes; the most: cat, from 100.0 % to 50.0 %.",
    }


def test_what_was_not_measured_is_a_dash_with_the_reason():
    unlabelled = AFTER.copy()
    unlabelled[1:3] = 0
    found = sentences({"run": facts(np.diag([10, 0, 0]), unlabelled)})
    assert found["kept"] == "The mIoU of the 2 classes of step 0 is – at the end; after step 0 it was –."
    assert found["lost"] == "– (not measured, no old class is labelled in the test set)."


def test_after_one_step_nothing_is_kept_or_lost():
    found = sentences({"run": facts(AFTER, groups=(0,) * 5)})
    assert found["learned"] == "4 classes in one step; their mIoU is 79.2 %."
    assert found["kept"] == "4 classes of step 0 have a mIoU of 79.2 %; no step came after it."
    assert found["lost"] == "– (not measured, after one step nothing could be forgotten)."


def test_nothing_lost_is_no_class():
    kept = np.diag([10] * 5)
    assert sentences({"run": facts(BEFORE, kept)})["lost"].endswith("over 2 classes; no class lost any.")


def test_runs_are_ranked_from_the_best_and_those_without_a_metric_are_last():
    runs = {"bad": facts(BEFORE, AFTER), "good": facts(BEFORE, np.diag([10] * 5)), "joint": facts(AFTER, groups=(0,) * 5)}
    found = sentences(runs)
    assert found["learned"] == "mIoU of the classes of later steps: good 100.0, bad 83.3, joint –."
    assert found["lost"] == "Points of IoU that a class lost since its best, on average: good 0.0, bad 25.0, joint –."
    many = {f"run {number}": runs["good"] for number in range(MOST + 2)}
    assert sentences(many)["kept"].endswith("run 4 100.0 and 2 more runs.")
