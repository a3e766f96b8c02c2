"""Confidence measures and pseudo-label thresholds."""

import math

import torch
from torch import Tensor

from contseg.precision import precisely


def first_best(scores_BKHW: Tensor) -> Tensor:
    """`argmax(dim=1)` of finite scores, (B, H, W) int64, fifteen times as fast on a CPU, where `argmax` is not vectorised.

    Example:
        >>> first_best(torch.tensor([0.2, 0.4, 0.4]).view(1, 3, 1, 1))
        tensor([[[1]]])
    """
    count = scores_BKHW.shape[1]
    if not scores_BKHW.is_cpu or count > 255:
        return scores_BKHW.argmax(dim=1)
    ranks = torch.arange(count, 0, -1, dtype=torch.uint8).view(1, -1, 1, 1)
    marks = (scores_BKHW == scores_BKHW.amax(dim=1, keepdim=True)).view(torch.uint8)
    return (count - (marks * ranks).amax(dim=1).long()).clamp_max_(count - 1)


@precisely
def entropy(probabilities_BKHW: Tensor) -> Tensor:
    """Entropy over the classes divided by its maximum, -(1/log K) sum_c p_c log p_c: (B, H, W) in [0, 1].

    Example:
        >>> entropy(torch.tensor([0.5, 0.5]).view(1, 2, 1, 1))
        tensor([[[1.]]])
    """
    classes = probabilities_BKHW.shape[1]
    return -torch.xlogy(probabilities_BKHW, probabilities_BKHW).sum(dim=1) / math.log(max(classes, 2))


@precisely
def mean_entropy(probabilities_BKHW: Tensor) -> Tensor:
    """The released PLOP code's entropy: a *mean* over classes, so at most 1/K, with 1e-8 inside both logarithms.

    h = -(1/log(K + 1e-8)) (1/K) sum_c p_c log(p_c + 1e-8): (B, H, W).
    """
    classes = probabilities_BKHW.shape[1]
    return -(probabilities_BKHW * torch.log(probabilities_BKHW + 1e-8)).mean(dim=1) / math.log(classes + 1e-8)


def class_histogram(values_N: Tensor, classes_N: Tensor, count: int, bins: int) -> Tensor:
    """Histogram of values in [0, 1] per class: (count, bins) int64; a value of 1 falls into the last bin.

    Example:
        >>> class_histogram(torch.tensor([0.1, 0.9, 1.0]), torch.tensor([0, 1, 1]), count=2, bins=2)
        tensor([[1, 0],
                [0, 2]])
    """
    bin_N = (values_N * bins).long().clamp_(0, bins - 1)
    place_N = classes_N * bins + bin_N
    # not bincount, which waits for the device to determine the highest place
    counts = place_N.new_zeros(count * bins).scatter_add_(0, place_N, place_N.new_ones(()).expand_as(place_N))
    return counts.view(count, bins)


def histogram_median(histogram_KM: Tensor) -> Tensor:
    """Median per class by linear interpolation in the bin where the running count reaches half: (K,) float64; 0 if empty.

    Example:
        >>> histogram_median(torch.tensor([[2, 2, 0, 0], [0, 0, 0, 4]]))
        tensor([0.2500, 0.8750], dtype=torch.float64)
    """
    bins = histogram_KM.shape[1]
    counts = histogram_KM.double()
    half = counts.sum(dim=1, keepdim=True) / 2
    running = counts.cumsum(dim=1)
    index = (running >= half).int().argmax(dim=1, keepdim=True)
    inside = counts.gather(1, index)
    below = running.gather(1, index) - inside
    median = (index + (half - below) / inside.clamp(min=1)) / bins
    return median.where(half > 0, 0).squeeze(1)


def released_median(histogram_KM: Tensor) -> Tensor:
    """The median of the released PLOP code, including its defects: (K,) float32, may be +-inf or NaN; 0 if empty.

    The loop over the bins adds the *index* of a bin to its running count, not the count in the bin, and reads bin
    int((i / bins) * bins), which is too small for some i. If no bin ends the loop, the last one is used.
    """
    histogram = histogram_KM.cpu().double()
    bins = histogram.shape[1]
    steps = torch.arange(bins, dtype=torch.float64)
    counts = histogram[:, (steps / bins * bins).long()]
    half = histogram.sum(dim=1, keepdim=True) / 2
    running = steps * (steps - 1) / 2  # 0 + 0 + 1 + ... + (i - 1)
    stops = (half >= running) & (half <= running + counts)
    index = torch.where(stops.any(dim=1), stops.int().argmax(dim=1), bins - 1).unsqueeze(1)
    # a loop that no bin ends has added the index of the last bin too
    final = torch.where(stops.any(dim=1, keepdim=True), running[index], running[-1] + bins - 1)
    value = index / bins + (half - final) / counts.gather(1, index) / bins
    return value.where(half > 0, 0).squeeze(1).float()  # a class never predicted: 0


def top_two(scores_BKHW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Best class of each pixel, its score, and its margin over the second class: three (B, H, W).

    Example:
        >>> best, score, margin = top_two(torch.tensor([0.25, 1.0, 0.5]).view(1, 3, 1, 1))
        >>> best.item(), score.item(), margin.item()
        (1, 1.0, 0.5)
    """
    score, best = scores_BKHW.topk(min(2, scores_BKHW.shape[1]), dim=1)
    return best[:, 0], score[:, 0], score[:, 0] - (score[:, 1] if score.shape[1] > 1 else 0)


def released_ranking(best_BHW: Tensor, margin_BHW: Tensor) -> Tensor:
    """The released LAG code's ranking of a pixel, (1 - margin) times the *number* of its class: (B, H, W).

    It rejects confident pixels of classes with low numbers and accepts nearly all pixels of classes with high numbers.
    """
    return (1 - margin_BHW) * best_BHW


def running_thresholds(histogram_KM: Tensor, ceiling: float, least: int = 1000) -> Tensor:
    """Threshold per class, min(ceiling, median of the confidences in the histogram of the class): (K,) float64.

    This is our interpretation of IDEC's dynamic, class-specific pseudo-labels, whose formula is not published: a class with
    low confidences of the teacher gets a lower threshold.

    Args:
        histogram_KM: counts of confidences in [0, 1], M bins.
        ceiling: the maximum threshold, and the threshold of classes with fewer than `least` pixels.
        least: see `ceiling`.

    Example:
        >>> running_thresholds(torch.tensor([[0, 1000], [1000, 0], [1, 0]]), ceiling=0.7)
        tensor([0.7000, 0.2500, 0.7000], dtype=torch.float64)
    """
    known = histogram_KM.sum(dim=1) >= least
    return histogram_median(histogram_KM).clamp(max=ceiling).where(known, ceiling)
