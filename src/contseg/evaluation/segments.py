"""Segments of test images by a network that classifies masks, and their panoptic quality in the same pass as the mIoU.

Segments of windows or of mirrored views cannot be averaged, so they are decided from one view of the whole image: the view
of the options, or where these have windows, the image resized to fit inside a window.
"""

import torch
from torch import Tensor
from torch.nn import functional

from contseg.data.classes import ClassTable
from contseg.data.dataset import SegmentationDataset
from contseg.data.segments import SegmentMap
from contseg.errors import ContsegError
from contseg.evaluation.along import resized_to, size_inside
from contseg.evaluation.inference import WHOLE, Inference, viewed
from contseg.evaluation.options import InferenceOptions
from contseg.evaluation.panoptic import PanopticCounts, add_up
from contseg.evaluation.predict import predict_batch
from contseg.evaluation.values import decided_classes, masks_of
from contseg.models.layers import resize
from contseg.models.mask_decision import Segments, panoptic
from contseg.models.output import MaskPrediction
from contseg.models.segmenter import Segmenter
from contseg.scenarios.batch import Batch
from contseg.scenarios.segments import true_segments


def measures_segments(dataset: SegmentationDataset, segmenter: Segmenter) -> bool:
    """Whether panoptic quality is measured: objects are annotated, and the network classifies masks."""
    return dataset.has_instances and segmenter.options.masks


def require_panoptic(segmenter: Segmenter, classes: ClassTable, what: str) -> None:
    """Raise ContsegError unless a segmenter can predict segments.

    Args:
        what: that asks for segments, for the message.

    Example:
        >>> from contseg.models.options import NetworkOptions
        >>> network = NetworkOptions(backbone={"name": "resnet18", "width": 4})
        >>> require_panoptic(Segmenter(network, [2]), ClassTable.of(["background", "cat"]), "--panoptic")
        Traceback (most recent call last):
        contseg.errors.ContsegError: --panoptic: the network decides a class for each pixel, ...
    """
    if not segmenter.options.masks:
        raise ContsegError(
            f"{what}: the network decides a class for each pixel, and has no masks that separate objects; use one"
            " that classifies masks (network.head=eomt)"
        )
    if not classes.things:
        raise ContsegError(
            f"{what}: none of the {len(classes)} classes of the network is a thing, so it learned no objects; use one that"
            " learned from panoptic labels (data.dataset=ade20k-panoptic or coco-panoptic)"
        )


def predict_segments(
    segmenter: Segmenter, images_BCHW: Tensor, classes: ClassTable, inference: Inference = WHOLE
) -> list[Segments]:
    """Segments of uint8 images at their size: objects of things, and one segment per class of stuff.

    All are of learned classes. A background that is not annotated is no class: its pixels are undecided.

    Args:
        segmenter: with masks, in eval mode.
        classes: of the outputs.
    """
    size = images_BCHW.shape[2], images_BCHW.shape[3]
    with torch.no_grad():
        return _decided(_masks(segmenter, images_BCHW, inference.options), size, classes)


def segment_map(segments: Segments) -> SegmentMap:
    """Predicted segments as measured: a class and a number for each pixel."""
    return SegmentMap.of_ids(segments.ids.cpu().numpy(), segments.classes)


class SegmentCounter:
    """Predicts the classes of test batches for `evaluate_domains`, and adds up the panoptic quality of their segments.

    A single view of the whole image passes through the network once for both.

    Args:
        segmenter: with masks.
        classes: of the outputs, `Step.table`, with the things.

    Attributes:
        counts: the sums so far.
    """

    def __init__(self, segmenter: Segmenter, classes: ClassTable, inference: Inference = WHOLE):
        self._segmenter, self._classes, self._inference = segmenter, classes, inference
        self.counts = PanopticCounts.none(len(classes))

    def predict(self, batch: Batch) -> Tensor:
        """Class outputs (B, H, W) int64 or `UNDECIDED`, as of `predict_batch`."""
        size, options = (batch.images.shape[2], batch.images.shape[3]), self._inference.options
        if options.single_view and (options.average == "logits" or self._segmenter.options.has_owners):
            with torch.no_grad():
                masks = _masks(self._segmenter, batch.images, options)
                found, labels = _decided(masks, size, self._classes), decided_classes(self._segmenter, masks, size)
        else:
            labels = predict_batch(self._segmenter, batch.images, inference=self._inference)
            found = predict_segments(self._segmenter, batch.images, self._classes, self._inference)
        pairs = zip(map(segment_map, found), true_segments(batch, self._classes), strict=True)
        self.counts = add_up(pairs, self._classes.is_thing, self.counts)
        return labels


def _decided(masks: MaskPrediction, size: tuple[int, int], classes: ClassTable) -> list[Segments]:
    things = frozenset(classes.is_thing.nonzero()[0].tolist())
    return panoptic(masks, size, things, void=classes.void_outputs)


def _masks(segmenter: Segmenter, images_BCHW: Tensor, options: InferenceOptions) -> MaskPrediction:
    """Classes and masks of uint8 images in one view of the whole image."""
    single = options.single()
    if options.mode != "whole" and not (options.fit or options.resize):
        return _inside_window(segmenter, images_BCHW, single)
    whole = single.model_copy(update={"mode": "whole"} | ({"scales": options.scales} if options.single_view else {}))
    return masks_of(segmenter, viewed(segmenter.normalise(images_BCHW), whole), whole)


def _inside_window(segmenter: Segmenter, images_BCHW: Tensor, options: InferenceOptions) -> MaskPrediction:
    """Masks of images that are resized to fit inside a window, and padded at the bottom and right with 0 to its size."""
    height, width = size_inside(images_BCHW.shape[2], images_BCHW.shape[3], options.window)
    tall, wide = options.window
    padded = functional.pad(resized_to(images_BCHW, (height, width)), (0, wide - width, 0, tall - height))
    found = masks_of(segmenter, segmenter.normalise(padded), options)
    return found._replace(mask_logits=resize(found.mask_logits, options.window)[:, :, :height, :width])
