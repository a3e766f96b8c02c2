"""What evaluation reads of a segmenter: logits, and the classes that follow from them.

A network that classifies masks is decided at full size: its masks are resized, and then become scores. Resized scores would
differ a little, and (Q, H, W) is never in memory for more than a band of rows.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from contseg.evaluation.decisions import best_classes_resized
from contseg.evaluation.inference import infer_map, viewed
from contseg.evaluation.options import InferenceOptions
from contseg.models.mask_decision import semantic_bands, semantic_classes
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
    """Class outputs (B, H, W) int64 of normalised images in a single view.

    Args:
        options: with `single_view`.
        size: (H, W) of the result.
    """
    if not segmenter.options.masks:
        return best_classes_resized(segmenter, infer_map(logits_of(segmenter), images_BCHW, options), size)
    return semantic_classes(masks_of(segmenter, viewed(images_BCHW, options), options), size)


def masks_of(segmenter: Segmenter, images_BCHW: Tensor, options: InferenceOptions) -> MaskPrediction:
    """Classes and masks of normalised images, of a network that classifies masks, at the precision of the options."""
    with torch.autocast(images_BCHW.device.type, torch.bfloat16, enabled=options.precision != "32"):
        output = segmenter(images_BCHW)
    assert output.masks is not None
    return output.masks
