"""Panoptic quality is what its definition says, computed slowly, segment by segment."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contseg.data.classes import ClassTable
from contseg.data.fake import write_fake
from contseg.data.open import open_dataset
from contseg.data.segments import CROWD, SegmentMap
from contseg.engine.own_loop import evaluation_batches
from contseg.evaluation.panoptic import (
    PanopticCounts,
    add_up,
    evaluate_segments,
    panoptic_counts,
    panoptic_figures,
    panoptic_forgetting,
)
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.scenario import Scenario
from contseg.scenarios.segments import true_segments

THINGS = np.array([False, True, True, False])
VOID = 255


def regions(segments: SegmentMap, things: np.ndarray, crowds: bool = False) -> dict:
    """The pixels of each segment, as a set, by class and number. Crowds of a class are one region, and only asked for."""
    found: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for place in np.ndindex(segments.classes.shape):
        kind, number = int(segments.classes[place]), int(segments.numbers[place])
        if 0 <= kind < len(things) and (number == CROWD) == crowds:
            found.setdefault((kind, number if things[kind] else 0), set()).add(place)
    return found


def slow_counts(prediction: SegmentMap, truth: SegmentMap, things: np.ndarray) -> np.ndarray:
    """(4, K) by the definition: match every prediction with every truth."""
    every = set(np.ndindex(truth.classes.shape))
    found, true, crowds = regions(prediction, things), regions(truth, things), regions(truth, things, crowds=True)
    void = every - set().union(*true.values(), *crowds.values())
    sums = np.zeros((4, len(things)))
    matched = set()
    for ours, mine in found.items():
        for theirs, other in true.items():
            iou = len(mine & other) / len((mine | other) - (mine & void))
            if ours[0] == theirs[0] and iou > 0.5:
                sums[0, ours[0]] += 1
                sums[3, ours[0]] += iou
                matched |= {("found", ours), ("true", theirs)}
    for ours, mine in found.items():
        crowd = set().union(*(other for theirs, other in crowds.items() if theirs[0] == ours[0]))
        if ("found", ours) not in matched and len(mine & (void | crowd)) <= len(mine) / 2:
            sums[1, ours[0]] += 1
    for theirs in true:
        sums[2, theirs[0]] += ("true", theirs) not in matched
    return sums


@st.composite
def maps(draw, crowd: bool) -> SegmentMap:
    """Segments in rectangles over each other, with pixels of no class."""
    height, width = 5, 7
    classes = np.full((height, width), draw(st.sampled_from([VOID, -1, 4, 0, 1])))
    numbers = np.zeros((height, width), dtype=int)
    for _ in range(draw(st.integers(0, 6))):
        top, left = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
        window = np.s_[top : top + draw(st.integers(1, height)), left : left + draw(st.integers(1, width))]
        classes[window] = draw(st.sampled_from([0, 1, 1, 2, 3, 4, VOID, -1]))
        numbers[window] = draw(st.sampled_from([0, 1, 2, 70_000, *([CROWD] if crowd else [])]))
    numbers[(classes < 0) | (classes > 3)] = draw(st.sampled_from([0, -1, 5]))
    return SegmentMap(classes, numbers)


def shifted(segments: SegmentMap, columns: int) -> SegmentMap:
    return SegmentMap(*(np.roll(layer, columns, axis=1) for layer in (segments.classes, segments.numbers)))


@settings(max_examples=400, deadline=None)
@given(maps(crowd=False), maps(crowd=True), st.integers(0, 2))
def test_counts_are_those_of_the_definition(prediction, truth, columns):
    near = shifted(truth, columns)  # a prediction that has matches
    plain = SegmentMap(near.classes, np.where(near.numbers == CROWD, 9, near.numbers))
    for found in (prediction, plain):
        counts = panoptic_counts(found, truth, THINGS)
        assert counts.array() == pytest.approx(slow_counts(found, truth, THINGS), abs=1e-12)
        assert [one.dtype for one in counts._parts()] == [np.int64] * 3 + [np.float64]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(maps(crowd=False), maps(crowd=True)), max_size=5), st.integers(0, 5))
def test_sums_add_up_over_images_and_ranks(pairs, cut):
    whole = add_up(pairs, THINGS)
    ranks = [add_up(part, THINGS).array() for part in (pairs[:cut], pairs[cut:])]
    assert PanopticCounts.of_array(ranks[0] + ranks[1]).array() == pytest.approx(whole.array(), abs=1e-12)
    assert add_up(pairs[cut:], THINGS, add_up(pairs[:cut], THINGS)).array() == pytest.approx(whole.array(), abs=1e-12)


def test_an_image_without_pixels_counts_nothing():
    empty = SegmentMap(np.zeros((0, 4), dtype=int), np.zeros((0, 4), dtype=int))
    assert not panoptic_counts(empty, empty, THINGS).array().any()


def row(*pixels: tuple[int, int]) -> SegmentMap:
    """A map of one row from (class, number) of each pixel."""
    classes, numbers = np.array(pixels).T
    return SegmentMap(classes[None], numbers[None])


class TestRules:
    def test_undecided_pixels_are_missed(self):
        truth = row(*[(1, 1)] * 4)
        half, more = (row(*[(1, 1)] * count, *[(-1, 0)] * (4 - count)) for count in (2, 3))
        counts = panoptic_counts(half, truth, THINGS)
        assert counts.array()[:3, 1].tolist() == [0, 1, 1]
        assert panoptic_counts(more, truth, THINGS).array()[:, 1].tolist() == [1, 0, 0, 0.75]
        nothing = panoptic_counts(row(*[(-1, 0)] * 4), truth, THINGS)
        assert nothing.array()[:3, 1].tolist() == [0, 0, 1]

    def test_exactly_half_is_no_match(self):
        counts = panoptic_counts(row((1, 1), (1, 1), (1, 1)), row((1, 1), (1, 1), (1, 2)), THINGS)
        assert counts.true_positives[1] == 1
        counts = panoptic_counts(row((1, 1), (1, 1)), row((1, 1), (1, 2)), THINGS)
        assert counts.array()[:3, 1].tolist() == [0, 1, 2]

    def test_a_prediction_of_which_more_than_half_is_void_is_not_wrong(self):
        two, one = row((1, 1), (VOID, 0), (VOID, 0)), row((1, 1), (1, 1), (VOID, 0))
        found = row(*[(2, 4)] * 3)
        assert panoptic_counts(found, two, THINGS).false_positives[2] == 0
        assert panoptic_counts(found, one, THINGS).false_positives[2] == 1

    def test_a_crowd_excuses_its_own_class_only_and_is_never_found_or_missed(self):
        truth = row(*[(1, CROWD)] * 3)
        for kind, wrong in ((1, 0), (2, 1)):
            counts = panoptic_counts(row(*[(kind, 1)] * 3), truth, THINGS)
            assert counts.array()[:, 1:3].sum() == counts.false_positives[kind] == wrong

    def test_all_pixels_of_stuff_are_one_segment(self):
        counts = panoptic_counts(row((0, 1), (1, 1), (0, 2)), row((0, 0), (1, 5), (0, 0)), THINGS)
        assert counts.true_positives.tolist() == [1, 1, 0, 0]

    def test_equal_numbers_of_different_classes_are_different_segments(self):
        counts = panoptic_counts(row((1, 1), (2, 1)), row((1, 1), (2, 1)), THINGS)
        assert counts.true_positives.tolist() == [0, 1, 1, 0]


COUNTS = PanopticCounts.of_array(
    np.array([[3, 2, 0, 0, 1], [1, 0, 1, 0, 0], [0, 1, 0, 0, 2], [2.4, 1.6, 0, 0, 0.7]], dtype=float)
)


class TestFigures:
    def test_quality_is_the_product_of_both_parts(self):
        pq, sq, rq = COUNTS.quality()
        assert pq == pytest.approx(sq * rq, nan_ok=True)
        assert pq[0] == pytest.approx(2.4 / 3.5)
        assert (sq[0], rq[0]) == (pytest.approx(0.8), pytest.approx(3 / 3.5))

    @pytest.mark.parametrize(
        ("absent", "left_out"), [("union", [0, 0, 0, 1, 0]), ("truth", [0, 0, 1, 1, 0]), ("zero", [0, 0, 0, 0, 0])]
    )
    def test_absent_classes_are_left_out_or_count_nothing(self, absent, left_out):
        quality = COUNTS.quality(absent)
        assert np.isnan(quality[0]).astype(int).tolist() == left_out
        assert all(np.isnan(one).tolist() == np.isnan(quality[0]).tolist() for one in quality)
        figures = panoptic_figures(COUNTS, (0, 0, 1, 2, 2), np.ones(5, bool), absent=absent)
        assert figures["pq"]["all"] == pytest.approx(np.nanmean(quality[0]))
        assert figures["measured"]["all"] == [5 - sum(left_out), 5]
        assert [value is None for value in figures["rq"]["classes"]] == [bool(one) for one in left_out]

    def test_groups_are_steps_and_kinds(self):
        things = np.array([True, False, True, False, False])
        figures = panoptic_figures(COUNTS, (0, 0, 1, 2, 2), things)
        pq = COUNTS.quality()[0]
        assert figures["pq"]["old"] == pytest.approx(pq[:2].mean())
        assert figures["pq"]["new"] == pytest.approx((pq[2] + pq[4]) / 2)
        assert figures["pq"]["past"] == pytest.approx(pq[:3].mean())
        assert figures["pq"]["current"] == pytest.approx(pq[4])
        assert figures["pq"]["things"] == pytest.approx(pq[[0, 2]].mean())
        assert figures["pq"]["stuff"] == pytest.approx(pq[[1, 4]].mean())
        old, new = figures["pq"]["old"], figures["pq"]["new"]
        assert figures["harmonic"] == pytest.approx(2 * old * new / (old + new))
        assert figures["segments"] == 9

    def test_background_is_in_no_mean(self):
        figures = panoptic_figures(COUNTS, (0, 0, 1, 2, 2), np.ones(5, bool), background=True)
        assert figures["pq"]["old"] == pytest.approx(COUNTS.quality()[0][1])
        assert figures["measured"]["old"] == [1, 1]

    def test_nothing_measured_is_no_number(self):
        figures = panoptic_figures(PanopticCounts.none(2), (0, 1), np.ones(2, bool))
        assert {*figures["pq"]["classes"], figures["pq"]["all"], figures["harmonic"]} == {None}

    def test_forgetting_is_the_drop_from_the_best_step(self):
        def of(*pq):  # one match each, of this IoU
            ones, zeros = np.ones(len(pq)), np.zeros(len(pq))
            return PanopticCounts.of_array(np.stack([ones, zeros, zeros, np.array(pq)]))

        found = panoptic_forgetting([of(0.8), of(0.9, 0.6), of(0.7, 0.65, 0.5)])
        assert found == pytest.approx([0.2, -0.05, np.nan], nan_ok=True)


def test_a_perfect_prediction_of_a_test_set_has_quality_1(tmp_path):
    dataset = open_dataset("coco-panoptic", write_fake("coco-panoptic", tmp_path / "coco", train=8, test=8, size=(40, 48)))
    step = Scenario(dataset, ScenarioOptions(split="4-1-128"), first_is_known=True)[1]
    seen = []
    counts = evaluate_segments(
        lambda batch: true_segments(batch, step.table), evaluation_batches(step), step.table, lambda: seen.append(1)
    )
    assert len(seen) == len(step.test)
    assert counts.true_positives[1:6].all()
    assert not counts.array()[1:3].any()
    figures = panoptic_figures(counts, (0,) * 5 + (1,), step.table.is_thing, background=True)
    assert (figures["pq"]["old"], figures["pq"]["new"]) == (1.0, 1.0)
    truth = sum(int((segments.classes == 0).sum()) for batch in evaluation_batches(step) for segments in
                true_segments(batch, ClassTable.of([*step.table.names], "annotated")))  # fmt: skip
    assert truth, "unlabelled pixels are void here, and a segment only where background is annotated"
