"""When the alarm for a collapsed background goes off, and when it does not."""

import numpy as np
import pytest

from contseg.evaluation.alarms import background_warnings

NAMES = ["background", "cat", "dog"]
BEFORE = np.array([[90, 10], [5, 45]])


def told(*rows: list[int], before: np.ndarray = BEFORE) -> list[str]:
    return background_warnings(before, np.array(rows), NAMES)


def test_a_background_that_a_class_has_taken_is_told_with_figures_and_the_class():
    (line,) = told([30, 5, 65], [0, 40, 10], [0, 0, 50])
    assert line.startswith("background fell by more than half: IoU 85.7% -> 30.0%, predicted / true pixels 0.95 -> 0.30; ")
    assert "65% of it is predicted as 'dog'; possible causes are" in line
    assert "check the" in line
    assert "\n" not in line


def test_a_background_that_has_swallowed_the_classes_is_told_too():
    (line,) = told([20, 0, 0], [40, 10, 0], [45, 0, 5])  # IoU 20 / 105
    assert "'dog' and others are predicted as background" in line
    assert "check the" in line


def test_a_share_that_halves_is_told_though_the_iou_does_not():
    before = np.array([[60, 40], [60, 40]])  # IoU 0.375, share 1.2
    (line,) = told([33, 67, 0], [10, 90, 0], [10, 0, 90], before=before)  # IoU 33 / 120, share 0.53
    assert not told([33, 67, 0], [15, 85, 0], [15, 0, 85], before=before)  # share 0.63
    assert "IoU 37.5% -> 27.5%, predicted / true pixels 1.20 -> 0.53" in line


@pytest.mark.parametrize("kept", [86, 60, 48])
def test_less_than_half_is_no_collapse(kept):
    assert told([kept, 100 - kept, 0], [0, 50, 0], [0, 0, 50]) == []  # halves are an IoU of 0.43 and a share of 0.475


@pytest.mark.parametrize("kept", [47, 42, 0])
def test_more_than_half_is_one(kept):
    assert len(told([kept, 100 - kept, 0], [0, 50, 0], [0, 0, 50])) == 1


def test_new_classes_and_images_in_the_test_set_are_no_collapse():
    """Background is 2/3 of the pixels before and 1/11 after; what is said of it is as right as it was."""
    assert told([90, 10, 0], [5, 445, 0], [5, 5, 540]) == []


def test_a_background_that_was_everywhere_may_shrink_to_what_it_is():
    everywhere = np.array([[20, 0], [80, 0]])  # share 5
    assert told([19, 1, 0], [1, 39, 0], [1, 0, 39], before=everywhere) == []


@pytest.mark.parametrize("before", [np.array([[0, 0], [5, 45]]), np.array([[0, 10], [0, 45]])])
def test_a_background_that_is_not_scored_or_was_never_right_cannot_fall(before):
    assert told([0, 0, 100], [0, 40, 10], [0, 0, 50], before=before) == []


def test_a_background_that_is_no_longer_in_the_test_set_is_no_collapse():
    assert told([0, 0, 0], [5, 40, 5], [0, 0, 50]) == []
