"""Figures against numbers worked out by hand.

After step 0 (background, a):            After step 1 (background, a, b; c is known but never occurs):

             said  bg   a                             said  bg   a   b   c
    truth bg      [ 6,  2]                 truth bg        [ 4,  0,  4,  0]
          a       [ 0,  4]                       a         [ 1,  2,  0,  1]
                                                 b         [ 0,  1,  3,  0]
                                                 c         [ 0,  0,  0,  0]

    IoU  bg 6 / 8, a 4 / 6                 IoU  bg 4 / 9, a 2 / 5, b 3 / 8, c absent
"""

import numpy as np
import pytest

from contseg.evaluation.metrics import (
    class_accuracy,
    class_forgetting,
    class_fscore,
    class_iou,
    class_precision,
    domain_figures,
    frequency_weighted_iou,
    harmonic,
    mean_over,
    overall_accuracy,
    run_figures,
    step_figures,
)

FIRST = np.array([[6, 2], [0, 4]])
SECOND = np.array([[4, 0, 4, 0], [1, 2, 0, 1], [0, 1, 3, 0], [0, 0, 0, 0]])
GROUPS = (0, 0, 1, 1, 2)  # one class is not learned yet
BG, A, B = 4 / 9, 2 / 5, 3 / 8


def test_an_absent_class_has_no_iou_and_no_accuracy_even_if_it_was_said():
    assert class_iou(SECOND) == pytest.approx([BG, A, B, np.nan], nan_ok=True)
    assert class_accuracy(SECOND) == pytest.approx([1 / 2, 1 / 2, 3 / 4, np.nan], nan_ok=True)


def test_a_class_that_occurs_and_is_never_said_has_iou_zero():
    assert class_iou(np.array([[3, 0], [2, 0]])) == pytest.approx([3 / 5, 0.0])


def test_a_class_that_was_said_and_is_not_there_counts_as_zero_where_the_union_decides():
    assert class_iou(SECOND, absent="union") == pytest.approx([BG, A, B, 0.0])
    nowhere = np.zeros((5, 5), int)
    nowhere[:4, :4] = SECOND
    assert class_iou(nowhere, absent="union") == pytest.approx([BG, A, B, 0.0, np.nan], nan_ok=True)
    assert class_fscore(nowhere, absent="union") == pytest.approx([8 / 13, 4 / 7, 6 / 11, 0.0, np.nan], nan_ok=True)


def test_precision_is_of_what_was_said():
    assert class_precision(SECOND) == pytest.approx([4 / 5, 2 / 3, 3 / 7, 0.0])
    assert class_precision(np.array([[3, 0], [2, 0]])) == pytest.approx([3 / 5, np.nan], nan_ok=True)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_fscore_is_the_weighted_harmonic_mean_of_precision_and_recall(beta):
    precision, recall = class_precision(SECOND)[:3], class_accuracy(SECOND)[:3]
    expected = (1 + beta**2) * precision * recall / (beta**2 * precision + recall)
    assert class_fscore(SECOND, beta) == pytest.approx([*expected, np.nan], nan_ok=True)
    assert class_fscore(np.array([[3, 0], [2, 0]]), beta)[1] == 0


def test_accuracy_over_all_pixels_and_weighted_by_frequency():
    assert overall_accuracy(SECOND) == pytest.approx(9 / 16)
    assert frequency_weighted_iou(SECOND) == pytest.approx((8 * BG + 4 * A + 4 * B) / 16)
    assert np.isnan(overall_accuracy(np.zeros((2, 2), int)))
    assert np.isnan(frequency_weighted_iou(np.zeros((2, 2), int)))


def test_epsilon_is_added_to_the_denominator():
    assert class_iou(np.array([[3]]), epsilon=1.0) == pytest.approx([3 / 4])
    assert class_accuracy(np.array([[3]]), epsilon=1.0) == pytest.approx([3 / 4])


def test_figures_of_a_step():
    figures = step_figures(SECOND, GROUPS)
    assert figures["iou"] == [pytest.approx(BG), pytest.approx(A), pytest.approx(B), None]
    expected = {
        "old": A,
        "new": B,
        "all": (A + B) / 2,
        "old_with_background": (BG + A) / 2,
        "all_with_background": (BG + A + B) / 3,
        "harmonic": 2 * A * B / (A + B),
        "accuracy": 9 / 16,
    }
    assert {key: figures[key] for key in expected} == pytest.approx(expected)


def test_the_first_step_has_no_new_classes_and_so_no_harmonic_mean():
    figures = step_figures(FIRST, GROUPS)
    assert figures["new"] is None
    assert figures["harmonic"] is None
    assert figures["old"] == figures["all"] == pytest.approx(4 / 6)


def test_figures_of_nothing_are_absent():
    figures = step_figures(np.zeros((3, 3), int), GROUPS)
    assert figures["iou"] == [None, None, None]
    assert {figures[key] for key in ("old", "new", "all", "all_with_background", "harmonic", "accuracy")} == {None}


def test_figures_of_a_run():
    figures = run_figures([FIRST, SECOND], GROUPS)
    assert figures["old"] == pytest.approx(A), "those of the last step"
    assert figures["average"] == pytest.approx((4 / 6 + (A + B) / 2) / 2)
    assert figures["average_with_background"] == pytest.approx(((6 / 8 + 4 / 6) / 2 + (BG + A + B) / 3) / 2)
    assert figures["forgetting"] == pytest.approx(4 / 6 - A)
    assert figures["class_forgetting"] == [pytest.approx(6 / 8 - BG), pytest.approx(4 / 6 - A), None, None]


def test_forgetting_is_from_the_best_earlier_step_and_negative_for_what_improved():
    worse, better = np.array([[8, 0], [2, 2]]), np.array([[8, 0], [0, 4]])
    assert class_forgetting([worse, better]) == pytest.approx([8 / 10 - 1, 2 / 4 - 1])
    assert class_forgetting([better, better, worse]) == pytest.approx([1 - 8 / 10, 1 - 2 / 4])


def test_forgetting_of_one_step_is_not_measured():
    figures = run_figures([FIRST], (0, 0))
    assert figures["forgetting"] is None
    assert figures["class_forgetting"] == [None, None]


@pytest.mark.parametrize(
    ("old", "new", "expected"), [(0.5, 0.25, 1 / 3), (0.0, 0.0, 0.0), (0.0, 1.0, 0.0), (None, 0.5, None), (0.5, None, None)]
)
def test_harmonic_mean(old, new, expected):
    assert harmonic(old, new) == (pytest.approx(expected) if expected is not None else None)


def test_a_mean_over_nothing_is_none():
    values = np.array([0.5, np.nan, 1.0])
    assert mean_over(values, np.array([True, True, False])) == 0.5
    assert mean_over(values, np.array([False, True, False])) is None


UNLABELLED = [np.zeros((2, 2), int), np.array([[5, 0, 1], [0, 0, 0], [1, 0, 3]])]
"""Background, an old class that no label shows, and a new one."""


def test_forgetting_of_classes_that_no_label_shows_is_not_measured():
    figures = run_figures(UNLABELLED, (0, 0, 1))
    assert figures["forgetting"] is None
    assert figures["old"] is None
    assert figures["measured"]["forgetting"] == [0, 1]
    assert figures["average"] == figures["new"] == pytest.approx(3 / 5)
    assert figures["measured"]["average"] == [1, 2]


def test_what_was_forgotten_to_the_last_bit_is_a_measured_zero():
    assert run_figures([FIRST, FIRST], (0, 0))["forgetting"] == 0.0


def test_every_mean_counts_the_classes_it_is_over():
    figures = step_figures(SECOND, GROUPS)
    assert figures["measured"] == {
        "old": [1, 1],
        "new": [1, 2],  # c never occurs
        "all": [2, 3],
        "old_with_background": [2, 2],
        "all_with_background": [3, 4],
    }
    assert figures["pixels"] == 16
    assert run_figures([FIRST, SECOND], GROUPS)["measured"]["forgetting"] == [1, 1]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([[FIRST, FIRST]], None),  # one step
        ([[FIRST, 0 * FIRST], [0 * FIRST, FIRST]], None),  # no domain before and after
        ([[FIRST, 0 * FIRST], [FIRST, FIRST]], 0.0),
    ],
)
def test_forgetting_of_domains_is_none_where_it_was_not_measured(steps, expected):
    assert domain_figures([np.stack(matrices) for matrices in steps])["domain_forgetting"] == expected
