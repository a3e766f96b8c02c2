"""Predictions of a segmenter: confusion matrices of labelled samples, or the classes of an image."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from contseg.data.classes import UNDECIDED
from contseg.data.files import read_image
from contseg.data.pipelines.augment import resize_image
from contseg.errors import ContsegError
from contseg.evaluation.confusion import add_confusion, ignore_undecided, scored_labels
from contseg.evaluation.grouping import in_equal_sizes
from contseg.evaluation.inference import WHOLE, Inference, infer_in_bands
from contseg.evaluation.values import View, classes_of
from contseg.models.segmenter import Segmenter
from contseg.scenarios.batch import Batch


def predict_batch(
    segmenter: Segmenter,
    images_BCHW: Tensor,
    size: tuple[int, int] | None = None,
    inference: Inference = WHOLE,
) -> Tensor:
    """Class outputs (B, H, W) int64 of uint8 images: arg max of the scores of resized logits, or `UNDECIDED` (-1).

    Computed in bands of rows, so that (K, H, W) of a large image is never in memory.

    Args:
        size: (H, W) of the prediction; default: size of the images.
        inference: windows, scales and flips. With several views, images are processed one by one to save memory.
    """
    with torch.no_grad():
        if inference.options.single_view:
            return _decide(segmenter, images_BCHW, size, inference)
        return torch.cat([_decide(segmenter, image, size, inference) for image in images_BCHW.split(1)])


def _decide(
    segmenter: Segmenter,
    images_BCHW: Tensor,
    size: tuple[int, int] | None,
    inference: Inference,
    kind: torch.dtype = torch.int64,
) -> Tensor:
    options, size = inference.options, size or (images_BCHW.shape[2], images_BCHW.shape[3])
    view = View.of(segmenter, options)
    if options.single_view and (view.logits or segmenter.options.has_owners):
        return classes_of(segmenter, segmenter.normalise(images_BCHW), options, size).to(kind)
    bands = _bands(segmenter, view, images_BCHW, size, inference)
    return torch.cat([view.decide(band).to(kind) for band in bands], dim=1)


def _scored_bands(
    segmenter: Segmenter, images_BCHW: Tensor, size: tuple[int, int] | None, inference: Inference
) -> Iterator[Tensor]:
    """Scores of the classes in bands of rows."""
    view = View.of(segmenter, inference.options)
    bands = _bands(segmenter, view, images_BCHW, size, inference)
    return map(segmenter.scores, bands) if view.logits else bands


def _bands(
    segmenter: Segmenter, view: View, images_BCHW: Tensor, size: tuple[int, int] | None, inference: Inference
) -> Iterator[Tensor]:
    """Logits, or scores with `average: scores`, in bands of rows."""
    options = inference.options
    # logits have an unknown output before the classes, scores do not
    first = int(segmenter.options.unknown and view.logits)
    # windows are normalised one by one, so that a large image is never in memory as floats
    late = options.mode != "whole" and not options.resizes
    return infer_in_bands(
        lambda images: view.network(segmenter.normalise(images) if late else images),
        images_BCHW if late else segmenter.normalise(images_BCHW),
        options,
        size,
        view.scores,
        [(one + first, other + first) for one, other in inference.mirror],
    )


def predict_values(segmenter: Segmenter, image: np.ndarray, inference: Inference = WHOLE) -> Iterator[Tensor]:
    """Logits of an image in bands (K, rows, W) from top to bottom, without an unknown output; scores with `average: scores`.

    Of a network that decides by owners also scores, those of `owner_scores`.

    Args:
        image: (H, W, 3) uint8 RGB.
    """
    view = View.of(segmenter, inference.options)
    first = int(segmenter.options.unknown and view.logits)
    with torch.no_grad():
        for band in _bands(segmenter, view, _tensor(segmenter, image), None, inference):
            yield band[0, first:]


def predict_with_scores(segmenter: Segmenter, image: np.ndarray, inference: Inference = WHOLE) -> tuple[Tensor, Tensor]:
    """Class outputs (H, W) int64 of an image, and their scores (H, W) in [0, 1], on the segmenter's device.

    The classes are those of `predict_image`; an undecided pixel has score 0.

    Args:
        image: (H, W, 3) uint8 RGB.
    """
    with torch.no_grad():
        best = [band[0].max(dim=0) for band in _scored_bands(segmenter, _tensor(segmenter, image), None, inference)]
    values = torch.cat([one.values for one in best]).clamp_max(1)  # those of masks may be sums above 1
    return _without_undecided(segmenter, torch.cat([one.indices for one in best]), values <= 0), values


def predict_with_doubt(
    segmenter: Segmenter, image: np.ndarray, inference: Inference = WHOLE
) -> tuple[Tensor, Tensor, Tensor]:
    """Class outputs (H, W) int64 of an image, and two measures of doubt (H, W) in [0, 1], on the segmenter's device.

    The entropy of the scores is divided by that of equal scores, so 1 is complete doubt. The margin is the best score minus
    the second best, so 0 is complete doubt, as an undecided pixel has. The classes are those of `predict_image`. Where one
    query owns a pixel, only its class has a score, so the entropy is 0 and the margin is that score.

    Args:
        image: (H, W, 3) uint8 RGB.
    """
    with torch.no_grad():
        bands = [_doubt(band[0]) for band in _scored_bands(segmenter, _tensor(segmenter, image), None, inference)]
    classes, entropy, margin, best = (torch.cat(parts) for parts in zip(*bands, strict=True))
    classes = _without_undecided(segmenter, classes, best <= 0)
    return classes, entropy.masked_fill(classes == UNDECIDED, 1), margin


def _without_undecided(segmenter: Segmenter, classes_HW: Tensor, unscored_HW: Tensor) -> Tensor:
    """The classes, `UNDECIDED` where no class has a score and the network may leave pixels undecided."""
    return classes_HW.masked_fill(unscored_HW, UNDECIDED) if segmenter.options.leaves_undecided else classes_HW


def _doubt(scores_KHW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Class, entropy, margin and best score of each pixel."""
    count = len(scores_KHW)
    shares = scores_KHW / scores_KHW.sum(dim=0).clamp_min(1e-12)
    entropy = torch.special.entr(shares).sum(dim=0) / math.log(max(2, count))
    best = scores_KHW.topk(min(2, count), dim=0).values
    margin = best[0] - best[1] if count > 1 else torch.ones_like(best[0])
    return scores_KHW.argmax(dim=0), entropy, margin, best[0]


def _tensor(segmenter: Segmenter, image: np.ndarray) -> Tensor:
    """(1, 3, H, W) uint8 on the segmenter's device."""
    return resize_image(image, *image.shape[:2]).unsqueeze(0).to(segmenter.mean.device)


def pixels_of(image: np.ndarray | Image.Image | Path | str) -> np.ndarray:
    """An image as (H, W, 3) uint8 RGB, from such an array, a PIL image (EXIF orientation is applied), or an image file.

    Raises:
        ContsegError: an array or a PIL image of another kind, or a file that cannot be read.

    Example:
        >>> pixels_of(Image.new("L", (5, 4), 7)).shape
        (4, 5, 3)
    """
    if isinstance(image, (str, Path)):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise ContsegError(f"image: a PIL image of mode {image.mode} has more than 8 bits; rescale it to 0 to 255 first")
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ContsegError(
            f"image: an array {image.shape} of {image.dtype}; give (H, W, 3) uint8 RGB, a PIL image, or a file"
        )
    return image


def predict_image(
    segmenter: Segmenter, image: np.ndarray | Image.Image | Path | str, inference: Inference = WHOLE
) -> np.ndarray:
    """Class outputs (H, W) of one image, see `pixels_of`; by default a single view of the whole image.

    They are uint8; int16 if there are more than 256, or if the network may leave pixels undecided, which are -1. The
    segmenter should be in eval mode.

    Raises:
        ContsegError: `pixels_of` does not accept the image, or it is smaller than the output stride.
    """
    image = pixels_of(image)
    if not (inference.options.fit or inference.options.resize):
        require_large_enough(segmenter, (image.shape[0], image.shape[1]))
    with torch.no_grad():
        image_BCHW = _tensor(segmenter, image)
        return _decide(segmenter, image_BCHW, None, inference, output_type(segmenter))[0].cpu().numpy()


def require_large_enough(segmenter: Segmenter, size: tuple[int, int]) -> None:
    """Raise ContsegError if an image is smaller than the output stride of a network, unless this pads images."""
    stride, (height, width) = segmenter.options.backbone.stride, size
    if min(size) < stride and not segmenter.options.masks:
        raise ContsegError(
            f"image of {width} x {height} pixels: smaller than the network's output stride of {stride}; enlarge it"
        )


def output_type(segmenter: Segmenter) -> torch.dtype:
    """The type of the class outputs of an image: uint8, or int16 if that cannot hold all of them and a possible -1."""
    small = sum(segmenter.widths) <= 256 and not segmenter.options.leaves_undecided
    return torch.uint8 if small else torch.int16


def evaluate(
    segmenter: Segmenter,
    batches: Iterable[Batch],
    classes: int,
    on_batch: Callable[[], None] | None = None,
    inference: Inference = WHOLE,
    together: int = 1,
) -> Tensor:
    """Confusion matrix (classes, classes) int64 over batches, on the segmenter's device.

    With a last column of undecided pixels if the network may leave some. The segmenter is in eval mode meanwhile. Pixels
    that `scored_labels` ignores are not counted, and undecided ones neither with `InferenceOptions.undecided: ignored`.

    Args:
        on_batch: called for each batch, for progress.
        inference: windows, scales and flips; labels are not changed.
        together: images of equal size that a GPU predicts together, if batches are smaller and each image has a single view.
            A CPU predicts batches as they come: it gains little, and other batches round differently.
    """
    return evaluate_domains(segmenter, batches, classes, [""], lambda name: "", on_batch, inference, together)[0]


def evaluate_domains(
    segmenter: Segmenter,
    batches: Iterable[Batch],
    classes: int,
    domains: Sequence[str],
    domain_of: Callable[[str], str],
    on_batch: Callable[[], None] | None = None,
    inference: Inference = WHOLE,
    together: int = 1,
    predict: Callable[[Batch], Tensor] | None = None,
) -> Tensor:
    """Confusion matrices (domains, classes, columns) int64: as `evaluate`, separately for each domain.

    Args:
        domains: all domains of the samples.
        domain_of: the domain of a sample name.
        predict: the classes of a batch, in place of `predict_batch`.
    """
    training = segmenter.training
    segmenter.eval()
    undecided = segmenter.options.leaves_undecided
    total = torch.zeros(len(domains), classes, classes + undecided, dtype=torch.int64, device=segmenter.mean.device)
    single = inference.options.single_view and total.device.type == "cuda"
    for batch in in_equal_sizes(batches, together if single else 1, on_batch):
        predictions = predict(batch) if predict else predict_batch(segmenter, batch.images, inference=inference)
        labels = scored_labels(batch.labels, predictions, batch.annotated)
        if undecided and inference.options.undecided == "ignored":
            labels = ignore_undecided(labels, predictions)
        places = torch.tensor([domains.index(domain_of(name)) for name in batch.names])
        add_confusion(total, labels, predictions, places.to(total.device, non_blocking=True))
    segmenter.train(training)
    return total
