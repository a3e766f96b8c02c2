"""What evaluation reads of a segmenter: logits, and the classes that follow from them.

A network that classifies masks is decided at full size: its masks are resized, and then become scores. Resized scores would
differ a little, and (Q, H, W) is never in memory for more than a band of rows. A network that decides by owners has no
logits: `View` has the scores of the owners in their place, which windows and views average whatever `average` is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from contseg.evaluation.decisions import best_classes, best_classes_resized
from contseg.evaluation.inference import infer_map, viewed
from contseg.evaluation.options import InferenceOptions
from contseg.models.mask_decision import (
    decided,
    owner_classes,
    owner_rule,
    owner_scores,
    semantic_bands,
    semantic_classes,
)
from contseg.models.output import MaskPrediction, as_logits
from contseg.models.segmenter import Segmenter


def logits_of(segmenter: Segmenter) -> Callable[[Tensor], Tensor]:
    """The function from normalised images to logits, at any resolution; of masks at the size of the images."""

    def logits(images_BCHW: Tensor) -> Tensor:
        output = segmenter(images_BCHW)
        if output.masks is None:
            return output.logits
        return as_logits(semantic_map(output.masks, (images_BCHW.shape[2], images_BCHW.shape[3])))

    return logits


@dataclass(frozen=True)
class View:
    """How a segmenter's values are computed, averaged and decided.

    Args:
        network: normalised images to values (B, K, h, w): logits, or scores of owners.
        scores: values to scores, as of `infer`.
        decide: averages to class outputs (B, H, W) int64, or `UNDECIDED`.
        logits: whether averages are logits, with an unknown output before the classes if there is one.
    """

    network: Callable[[Tensor], Tensor]
    scores: Callable[[Tensor], Tensor]
    decide: Callable[[Tensor], Tensor]
    logits: bool

    @classmethod
    def of(cls, segmenter: Segmenter, options: InferenceOptions) -> "View":
        """That of a segmenter."""
        if (rule := owner_rule(segmenter.options)) is not None:

            def owners(images_BCHW: Tensor) -> Tensor:
                prediction = segmenter(images_BCHW).masks
                assert prediction is not None
                return owner_scores(prediction, (images_BCHW.shape[2], images_BCHW.shape[3]), rule)

            return cls(owners, _kept, decided if segmenter.options.leaves_undecided else _best, logits=False)
        if options.average == "logits":
            return cls(logits_of(segmenter), segmenter.scores, partial(best_classes, segmenter), logits=True)
        return cls(logits_of(segmenter), segmenter.scores, _best, logits=False)


def _kept(values_BKHW: Tensor) -> Tensor:
    return values_BKHW


def _best(scores_BKHW: Tensor) -> Tensor:
    return scores_BKHW.argmax(dim=1)


def semantic_map(prediction: MaskPrediction, size: tuple[int, int]) -> Tensor:
    """The scores of `semantic_bands`, (B, K, H, W)."""
    result: Tensor | None = None
    for image, rows, scores in semantic_bands(prediction, size):
        if result is None:
            result = scores.new_empty(len(prediction.class_logits), len(scores), *size)
        result[image, :, rows] = scores
    assert result is not None
    return result


def classes_of(segmenter: Segmenter, images_BCHW: Tensor, options: InferenceOptions, size: tuple[int, int]) -> Tensor:
    """Class outputs (B, H, W) int64 of normalised images in a single view, or `UNDECIDED`.

    Args:
        options: with `single_view`.
        size: (H, W) of the result.
    """
    if not segmenter.options.masks:
        return best_classes_resized(segmenter, infer_map(logits_of(segmenter), images_BCHW, options), size)
    return decided_classes(segmenter, masks_of(segmenter, viewed(images_BCHW, options), options), size)


def decided_classes(segmenter: Segmenter, prediction: MaskPrediction, size: tuple[int, int]) -> Tensor:
    """The class of each pixel by the rule of the network, (B, H, W) int64, or `UNDECIDED`."""
    rule = owner_rule(segmenter.options)
    return semantic_classes(prediction, size) if rule is None else owner_classes(prediction, size, rule)


def masks_of(segmenter: Segmenter, images_BCHW: Tensor, options: InferenceOptions) -> MaskPrediction:
    """Classes and masks of normalised images, of a network that classifies masks, at the precision of the options."""
    with torch.autocast(images_BCHW.device.type, torch.bfloat16, enabled=options.precision != "32"):
        output = segmenter(images_BCHW)
    assert output.masks is not None
    return output.masks
