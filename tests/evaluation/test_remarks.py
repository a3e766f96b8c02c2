"""Beside every figure that is not over everything stands one sentence."""

import numpy as np
import pytest

from contseg.evaluation.remarks import ONE_STEP, domain_remarks, run_remarks, step_remarks

NAMES = ("background", "cat", "dog", "fox")
FULL = np.array([[6, 1, 0], [1, 4, 0], [0, 1, 3]])
FIRST = FULL[:2, :2]
EMPTY = np.zeros((2, 2), int)
NO_CAT = np.array([[6, 0, 1], [0, 0, 0], [0, 0, 3]])
NO_OLD = "not measured, no old class is labelled in the test set"


def test_where_all_is_measured_nothing_is_said():
    assert step_remarks(FULL, (0, 0, 1), names=NAMES[:3], annotated=np.ones(3, dtype=bool)) == {}
    assert run_remarks([FIRST, FULL], (0, 0, 1)) == {}


@pytest.mark.parametrize(
    ("confusions", "groups", "key", "text"),
    [
        ([FIRST], (0, 0), "forgetting", ONE_STEP),
        ([FIRST], (0, 0), "new", "not measured, no class has come after step 0"),
        ([EMPTY, NO_CAT], (0, 0, 1), "forgetting", NO_OLD),
        ([EMPTY, FULL], (0, 0, 1), "forgetting", "not measured, no old class is labelled in an earlier test set"),
        ([EMPTY, NO_CAT], (0, 0, 1), "old", "not measured, no class of step 0 is labelled in the test set"),
        ([EMPTY, NO_CAT], (0, 0, 1), "harmonic", "not measured, it needs old and new"),
        ([EMPTY, NO_CAT], (0, 0, 1), "all", "over 1 of 2 classes; without a labelled pixel in the test set: cat"),
        ([EMPTY, 0 * NO_CAT], (0, 0, 1), "average", "not measured, no class is labelled in a test set"),
        ([EMPTY, 0 * NO_CAT], (0, 0, 1), "accuracy", "not measured, the test set has no labelled pixel"),
    ],
)
def test_a_missing_figure_has_its_reason(confusions, groups, key, text):
    assert run_remarks(confusions, groups, names=NAMES[: len(confusions[-1])])[key] == text


def test_labelled_pixels_may_all_be_undecided():
    found = run_remarks([EMPTY, np.pad(NO_CAT, ((0, 0), (0, 1)))], (0, 0, 1), names=NAMES[:3])
    assert found["old"] == "not measured, no class of step 0 is labelled and decided in the test set"
    assert found["all"] == "over 1 of 2 classes; without a labelled and decided pixel in the test set: cat"


def test_a_background_that_is_not_scored_is_said_and_is_not_among_the_classes_without_a_label():
    found = step_remarks(np.array([[0, 0, 0], [1, 4, 0], [0, 0, 1]]), (0, 0, 1), names=NAMES[:3])
    assert found == {"background": "not measured, no pixel of the test set counts as background"}


def test_classes_that_no_mask_labels_are_named_beside_background_and_accuracy():
    marked = np.array([False, False, True])
    found = step_remarks(NO_CAT, (0, 0, 1), names=NAMES[:3], annotated=marked)
    text = "pixels labelled background and predicted as cat are not scored: no mask labels these classes"
    assert found["background"] == text
    assert found["accuracy"] == f"over 10 pixels; {text}"


def test_domains_have_their_reasons_too():
    values = np.array([[0.5, np.nan], [np.nan, 0.4]])
    found = domain_remarks({"domains": values, "domain_forgetting": None}, ("Bonn", "Ulm"))
    assert found["domains"].endswith(": Bonn")
    assert found["domain_forgetting"].startswith("not measured, no domain was measured both before")
    assert (
        domain_remarks({"domains": values[:1], "domain_forgetting": None}, ("Bonn", "Ulm"))["domain_forgetting"] == ONE_STEP
    )
