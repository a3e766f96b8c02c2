"""The feature that the classifier reads: where it activates a class, and its mean over regions of a class."""

import numpy as np
import torch
from torch import Tensor

from contseg.data.outlines import draw, regions
from contseg.models.output import score_map
from contseg.models.segmenter import Segmenter, SegmenterOutput


def classifier_input(segmenter: Segmenter, image: np.ndarray) -> Tensor:
    """The feature that the classifier reads, (1, D, h, w) float32 on the segmenter's device; of one view of the whole image.

    Args:
        segmenter: in eval mode.
        image: (H, W, 3) uint8 RGB.
    """
    return _output(segmenter, image).features[segmenter.classifier_tap].float()


def _output(segmenter: Segmenter, image: np.ndarray) -> SegmenterOutput:
    """The output for an image, with the feature that the classifier reads."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(segmenter.mean.device)
    with torch.no_grad():
        return segmenter(segmenter.normalise(pixels), taps=(segmenter.classifier_tap,))


def evidence(segmenter: Segmenter, image: np.ndarray, place: int) -> Tensor:
    """Where an image activates a class, (h, w), not negative: its `activation_map`, or the score of its masks.

    Args:
        segmenter: in eval mode.
        image: (H, W, 3) uint8 RGB.
        place: as of `activation_map`.
    """
    output = _output(segmenter, image)
    if output.masks is not None:
        return score_map(output.masks)[0, place]
    return activation_map(segmenter, output.features[segmenter.classifier_tap].float(), place)


def activation_map(segmenter: Segmenter, features_1DHW: Tensor, place: int) -> Tensor:
    """Where the features activate a class: its gradient-weighted class activation map, (h, w), not negative.

    Seg-Grad-CAM (Vinogradova et al., AAAI 2020) of the logits y of class k, summed over all positions, on the input A
    of the classifier, with n positions:

        L = relu(sum_d a_d A_d),  a_d = 1/n sum_uv d(sum_ij y_ij) / d A_d,uv

    With a linear classifier, a is the row of the class, and L is its class activation map (Zhou et al., CVPR 2016). Only the
    classifier is differentiated, so that the map is as fine as the features, whatever backbone and head.

    Args:
        segmenter: in eval mode.
        features_1DHW: see `classifier_input`.
        place: position of the class; an unknown output is not counted.
    """
    with torch.enable_grad():
        features = features_1DHW.detach().requires_grad_()
        score = segmenter.classifier(features)[0, place + int(segmenter.options.unknown)].sum()
        (gradient,) = torch.autograd.grad(score, features)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return (weights * features.detach()).sum(dim=1)[0].relu()


def region_map(labels: np.ndarray, least: float = 1, skipped: int = 255) -> tuple[np.ndarray, list[int]]:
    """The connected regions of a label map, (H, W) int32 with -1 outside of them, and the label of each.

    Args:
        labels: (H, W) integers.
        least: smaller regions are left out, in pixels.
        skipped: a label that has no regions.

    Example:
        >>> region_map(np.array([[0, 1, 1], [1, 0, 255]]))
        (array([[ 1,  0,  0],
               [ 2,  3, -1]], dtype=int32), [1, 0, 1, 0])
    """
    numbers = np.full(labels.shape, -1, dtype=np.int32)
    values: list[int] = []
    for region in regions(labels):  # an enclosed one comes after the one around it, and is drawn over it
        kept = region.value != skipped and region.pixels >= least
        draw(numbers, region.outline, len(values) if kept else -1)
        if kept:
            values.append(region.value)
    return numbers, values


def region_means(features_1DHW: Tensor, numbers: np.ndarray, count: int) -> Tensor:
    """The mean feature of each region, (count, D); a pixel has the feature of the cell that it is in.

    Args:
        features_1DHW: (1, D, h, w).
        numbers: (H, W) number of the region of each pixel, or -1; every region has a pixel.

    Example:
        >>> features = torch.tensor([[1.0, 3.0]]).view(1, 1, 1, 2)
        >>> region_means(features, np.array([[0, 0, 0, 0], [1, 1, -1, -1]]), 2).flatten().tolist()
        [2.0, 1.0]
    """
    height, width = features_1DHW.shape[2:]
    rows, columns = (np.arange(side) * cells // side for side, cells in zip(numbers.shape, (height, width), strict=True))
    cells = rows[:, None] * width + columns
    inside = numbers >= 0
    pixels = np.bincount(
        numbers[inside].astype(np.int64) * (height * width) + cells[inside], minlength=count * height * width
    )
    weights = torch.from_numpy(pixels.reshape(count, height * width)).to(features_1DHW)
    return weights @ features_1DHW[0].flatten(1).T / weights.sum(dim=1, keepdim=True)
