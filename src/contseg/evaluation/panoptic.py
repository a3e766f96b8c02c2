"""Panoptic quality (Kirillov et al., Panoptic Segmentation, CVPR 2019): how well segments are found and outlined.

A predicted and a true segment of equal class match if their intersection over union is above 1/2; at most one pair of each
segment does. Per class, with the matched pairs TP, the predictions FP and the true segments FN without a match:

    PQ = sum of IoU over TP / (TP + FP/2 + FN/2) = SQ * RQ,   SQ = sum of IoU / TP,   RQ = TP / (TP + FP/2 + FN/2)

Pixels whose truth is void count in no union, and a prediction of which more than half is void, or crowd of its class, is no
FP. Crowds match nothing and are no FN. Undecided pixels belong to no prediction, so that what they cover is missed.

The four sums add up over images and ranks; every figure is computed from them. All figures are in [0, 1].
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from contseg.data.classes import ClassTable
from contseg.data.segments import CROWD, NUMBER_BITS, SegmentMap, segment_keys
from contseg.evaluation.metrics import BACKGROUND, harmonic, mean_over
from contseg.scenarios.batch import Batch
from contseg.scenarios.segments import true_segments

Absent = Literal["union", "truth", "zero"]
"""Which classes are left out of means: those without a segment in truth and prediction (`union`, as in panopticapi), those
without one in the truth (`truth`), or none, so that such classes count 0 (`zero`, as in torchmetrics)."""


SUMS = ("true_positives", "false_positives", "false_negatives", "iou")


@dataclass(frozen=True)
class PanopticCounts:
    """The sums of panoptic quality, over K classes.

    Args:
        true_positives, false_positives, false_negatives: (K,) int64.
        iou: (K,) float64, sums over the true positives.

    Example:
        >>> one = PanopticCounts.none(2) + PanopticCounts.of_array(np.array([[1, 0], [0, 1], [1, 0], [0.8, 0]]))
        >>> one.quality()[0].round(3), (one + one).true_positives
        (array([0.533, 0.   ]), array([2, 0]))
    """

    true_positives: np.ndarray
    false_positives: np.ndarray
    false_negatives: np.ndarray
    iou: np.ndarray

    @classmethod
    def none(cls, classes: int) -> "PanopticCounts":
        """Zero for every class."""
        return cls.of_array(np.zeros((4, classes)))

    @classmethod
    def of_array(cls, sums: np.ndarray) -> "PanopticCounts":
        """From (4, K): true positives, false positives, false negatives, sums of IoU."""
        hits, wrong, missed = (row.astype(np.int64) for row in sums[:3])
        return cls(hits, wrong, missed, sums[3].astype(np.float64))

    def array(self) -> np.ndarray:
        """(4, K) float64, to be added over ranks and stored; counts below 2^53 are exact."""
        return np.stack([self.true_positives, self.false_positives, self.false_negatives, self.iou])

    def as_json(self) -> dict[str, list]:
        """The sums as lists, by the names of the arguments; `of_json` reads them, bit-equal."""
        return {name: getattr(self, name).tolist() for name in SUMS}

    @classmethod
    def of_json(cls, content: Mapping[str, Sequence[float]]) -> "PanopticCounts":
        """From `as_json`.

        Example:
            >>> PanopticCounts.of_json(PanopticCounts.none(2).as_json()).iou
            array([0., 0.])
        """
        return cls.of_array(np.array([content[name] for name in SUMS]))

    def __add__(self, other: "PanopticCounts") -> "PanopticCounts":
        return PanopticCounts(*(one + more for one, more in zip(self._parts(), other._parts(), strict=True)))

    def _parts(self) -> tuple[np.ndarray, ...]:
        return self.true_positives, self.false_positives, self.false_negatives, self.iou

    def quality(self, absent: Absent = "union") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """PQ, SQ and RQ per class, (K,) each; NaN where a class is absent. SQ without a match is 0."""
        hits = self.true_positives.astype(float)
        weight = hits + self.false_positives / 2 + self.false_negatives / 2
        present = {
            "union": weight > 0,
            "truth": self.true_positives + self.false_negatives > 0,
            "zero": np.ones(len(hits), dtype=bool),
        }[absent]
        figures = _share(self.iou, weight), _share(self.iou, hits), _share(hits, weight)
        return tuple(np.where(present, figure, np.nan) for figure in figures)  # type: ignore[return-value]


def panoptic_counts(prediction: SegmentMap, truth: SegmentMap, things: np.ndarray) -> PanopticCounts:
    """The sums of one image.

    Args:
        prediction, truth: of equal size; classes outside 0..K-1 are undecided or void.
        things: (K,) bool, whether a class has objects; all pixels of another class are one segment.

    Example:
        >>> truth = SegmentMap(np.array([[0, 0, 1, 1, 1, 255]]), np.array([[0, 0, 1, 1, 2, 0]]))
        >>> found = SegmentMap(np.array([[0, 0, 1, 1, 1, 1]]), np.array([[0, 0, 1, 1, 1, 3]]))
        >>> counts = panoptic_counts(found, truth, np.array([False, True]))
        >>> counts.true_positives, counts.false_positives, counts.false_negatives, counts.iou.round(3)
        (array([1, 1]), array([0, 0]), array([0, 1]), array([1.   , 0.667]))
    """
    assert prediction.classes.shape == truth.classes.shape, "prediction and truth of equal size"
    kinds = len(things)
    predicted, true, pixels = _overlaps(prediction, truth, things)
    (segments_P, of_P), (segments_T, of_T) = (np.unique(keys, return_inverse=True) for keys in (predicted, true))
    class_P, class_T = segments_P >> NUMBER_BITS, segments_T >> NUMBER_BITS  # -1 stays -1
    crowd_T = (segments_T & (1 << NUMBER_BITS) - 1 == CROWD) & (class_T >= 0)

    def summed(places: np.ndarray, chosen: np.ndarray, count: int) -> np.ndarray:
        return np.bincount(places[chosen], weights=pixels[chosen], minlength=count).astype(np.int64)

    every, void = np.ones(len(pixels), dtype=bool), class_T[of_T] < 0
    same = (class_P[of_P] == class_T[of_T]) & ~void
    area_P, area_T = summed(of_P, every, len(segments_P)), summed(of_T, every, len(segments_T))
    void_P = summed(of_P, void, len(segments_P))
    uncounted_P = void_P + summed(of_P, same & crowd_T[of_T], len(segments_P))

    union = area_P[of_P] - void_P[of_P] + area_T[of_T] - pixels
    hit = same & ~crowd_T[of_T] & (2 * pixels > union)
    missed, wrong = (class_T >= 0) & ~crowd_T, (class_P >= 0) & (2 * uncounted_P <= area_P)
    missed[of_T[hit]] = wrong[of_P[hit]] = False

    hits = class_T[of_T[hit]]
    found, extra, lost = (np.bincount(which, minlength=kinds) for which in (hits, class_P[wrong], class_T[missed]))
    iou = np.bincount(hits, pixels[hit] / union[hit], minlength=kinds)
    return PanopticCounts(found, extra, lost, iou.astype(np.float64))  # NumPy sums nothing to integers


def add_up(
    pairs: Iterable[tuple[SegmentMap, SegmentMap]], things: np.ndarray, start: PanopticCounts | None = None
) -> PanopticCounts:
    """The sums over images.

    Args:
        pairs: prediction and truth of each image.
        things: as of `panoptic_counts`.
        start: what the sums are added to; default: zero.
    """
    total = start or PanopticCounts.none(len(things))
    for prediction, truth in pairs:
        total += panoptic_counts(prediction, truth, things)
    return total


def evaluate_segments(
    predict: Callable[[Batch], Sequence[SegmentMap]],
    batches: Iterable[Batch],
    classes: ClassTable,
    on_batch: Callable[[], None] | None = None,
) -> PanopticCounts:
    """The sums over test batches, as of `contseg.engine.own_loop.evaluation_batches`.

    Args:
        predict: the segments of the images of a batch, at their size, with outputs as classes.
        classes: of the outputs, `Step.table`, with the things.
        on_batch: called for each batch, for progress.
    """
    total = PanopticCounts.none(len(classes))
    for batch in batches:
        total = add_up(zip(predict(batch), true_segments(batch, classes), strict=True), classes.is_thing, total)
        if on_batch:
            on_batch()
    return total


def panoptic_figures(
    counts: PanopticCounts,
    groups: Sequence[int],
    things: np.ndarray,
    background: bool = False,
    absent: Absent = "union",
) -> dict:
    """Figures of the sums after one step.

    Args:
        counts: over the K classes seen so far.
        groups: the step that added each class; at least K values.
        things: (K,) bool.
        background: whether the first class is a background, which is left out of every mean.
        absent: which classes are left out of means.

    Returns:
        `pq`, `sq` and `rq`, each with `classes` (a list, None where a class is absent) and its means `old` (classes of step
        0), `new` (of later steps), `past` (of all steps but the last), `current` (of the last step), `things`, `stuff` and
        `all`, None without a class; `harmonic` of old and new PQ; `measured`, for each mean the number of classes that are
        not absent and of all its classes; `segments`, the number of true segments.

    Example:
        >>> counts = PanopticCounts.of_array(np.array([[1, 0, 2], [0, 0, 1], [0, 0, 1], [0.8, 0, 1.5]]))
        >>> figures = panoptic_figures(counts, (0, 0, 1), np.array([True, True, False]))
        >>> figures["pq"]["classes"], figures["pq"]["old"], figures["pq"]["all"], figures["measured"]["old"]
        ([0.8, None, 0.5], 0.8, 0.65, [1, 2])
    """
    figures = counts.quality(absent)
    kinds = len(figures[0])
    group, ordinary = np.array(groups[:kinds]), ~((np.arange(kinds) == BACKGROUND) & background)
    last = group.max(initial=0)
    members = {
        "old": (group == 0) & ordinary,
        "new": (group > 0) & ordinary,
        "past": (group < last) & ordinary,
        "current": (group == last) & ordinary,
        "things": things & ordinary,
        "stuff": ~things & ordinary,
        "all": ordinary,
    }
    found: dict = {
        name: {
            "classes": [None if np.isnan(value) else float(value) for value in values],
            **{key: mean_over(values, chosen) for key, chosen in members.items()},
        }
        for name, values in zip(("pq", "sq", "rq"), figures, strict=True)
    }
    there = ~np.isnan(figures[0])
    return found | {
        "harmonic": harmonic(found["pq"]["old"], found["pq"]["new"]),
        "measured": {key: [int((there & chosen).sum()), int(chosen.sum())] for key, chosen in members.items()},
        "segments": int((counts.true_positives + counts.false_negatives).sum()),
    }


MEANS = ("old", "new", "past", "current", "things", "stuff", "all")
"""The groups of classes over which `panoptic_figures` takes means."""


def panoptic_run(
    each: Sequence[PanopticCounts], groups: Sequence[int], things: np.ndarray, background: bool = False
) -> dict:
    """Figures of a whole run from the sums after each step; arguments as of `panoptic_figures`.

    Args:
        things: (K,) bool, of the classes after the last step.

    Returns:
        Those of `panoptic_figures` for the last step, and in `pq` also `average`, the mean of `all` over the steps, and
        `forgetting`, the mean of `panoptic_forgetting` without background; None without a class. `steps` has the figures
        after each step.
    """
    steps = [panoptic_figures(one, groups, things[: len(one.iou)], background) for one in each]
    whole = [one["pq"]["all"] for one in steps if one["pq"]["all"] is not None]
    fallen = panoptic_forgetting(each)
    ordinary = ~((np.arange(len(fallen)) == BACKGROUND) & background)
    last = steps[-1]
    more = {
        "average": float(np.mean(whole)) if whole else None,
        "forgetting": mean_over(fallen, ordinary),
        "fallen": [None if np.isnan(value) else float(value) for value in fallen],
    }
    return last | {"pq": last["pq"] | more, "steps": steps}


def panoptic_forgetting(each: Sequence[PanopticCounts], absent: Absent = "union") -> np.ndarray:
    """Drop of each class's PQ from its best: max over earlier steps, minus the last: (K,).

    NaN for classes that are absent at the end, or were not measured before the last step.

    Args:
        each: the sums after each step, over the classes seen until then.

    Example:
        >>> first = PanopticCounts.of_array(np.array([[1.0], [0], [0], [0.9]]))
        >>> last = PanopticCounts.of_array(np.array([[1.0, 1], [2, 0], [0, 0], [0.9, 1]]))
        >>> panoptic_forgetting([first, last]).round(3)
        array([0.45,  nan])
    """
    last = each[-1].quality(absent)[0]
    best = np.full(len(last), np.nan)
    for counts in each[:-1]:
        quality = counts.quality(absent)[0]
        best[: len(quality)] = np.fmax(best[: len(quality)], quality)
    return best - last


def _overlaps(prediction: SegmentMap, truth: SegmentMap, things: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of keys (see `segment_keys`) with a common pixel, and the number of common pixels, (N,) each.

    Rows are cut into runs of equal pixels first, so that only runs are computed with and sorted.
    """
    layers = [layer.ravel() for one in (prediction, truth) for layer in (one.classes, one.numbers)]
    changes = np.ones(len(layers[0]), dtype=bool)
    if len(changes):
        changes[1:] = np.logical_or.reduce([layer[1:] != layer[:-1] for layer in layers])
    starts = np.flatnonzero(changes)
    lengths = np.diff(starts, append=len(changes))
    runs = [layer[starts] for layer in layers]
    keys = (segment_keys(SegmentMap(*pair), things) for pair in (runs[:2], runs[2:]))
    (ours, of_run), (theirs, to_run) = (np.unique(one, return_inverse=True) for one in keys)
    pairs, place = np.unique(of_run * len(theirs) + to_run, return_inverse=True)
    pixels = np.bincount(place, weights=lengths).astype(np.int64)
    return ours[pairs // max(1, len(theirs))], theirs[pairs % max(1, len(theirs))], pixels


def _share(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)
