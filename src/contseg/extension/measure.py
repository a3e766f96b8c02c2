"""Compare extended models with the model that they come from, on labelled and on unlabelled images."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from contseg.data.classes import IGNORE, UNDECIDED
from contseg.data.files import read_image
from contseg.data.pixels import AS_STORED, Reading
from contseg.evaluation.inference import WHOLE, Inference
from contseg.evaluation.metrics import BACKGROUND, class_iou, harmonic, mean_over
from contseg.evaluation.predict import predict_with_scores
from contseg.models.segmenter import Segmenter
from contseg.scenarios.batch import Samples

CONFIDENT = 0.9
"""Score from which a prediction of the old model counts as confident."""


@dataclass(frozen=True)
class Photo:
    """An image (H, W, 3) uint8 RGB, and its labels (H, W) uint8: outputs, K where none of the annotated classes is, 255
    where nothing is known. Without labels, None.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class LabelledPhotos:
    """Images with labels.

    Args:
        samples: their lookup maps mask values to outputs, K and 255.
        scored: whether labels measure IoU. False for images that were used for learning.
    """

    samples: Samples
    scored: bool = True

    @property
    def annotated(self) -> np.ndarray:
        """(K,) bool, classes whose labels are complete in these images. A pixel without a label may show any other."""
        return self.samples.annotated

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Photo]:
        for index, name in enumerate(self.samples.names):
            image, layers = self.samples.read(index)
            yield Photo(name, image, self.samples.labels(layers))

    def only(self, names: Collection[str]) -> "LabelledPhotos":
        """Those with one of these names."""
        kept = tuple(name for name in self.samples.names if name in names)
        return replace(self, samples=replace(self.samples, names=kept))


@dataclass(frozen=True)
class PlainPhotos:
    """Images without labels.

    Args:
        paths: their files.
        reading: how the values of a file become colours.
    """

    paths: Sequence[Path]
    reading: Reading = AS_STORED

    def __len__(self) -> int:
        return len(self.paths)

    def __iter__(self) -> Iterator[Photo]:
        for path in self.paths:
            yield Photo(str(path), read_image(path, self.reading))

    def only(self, names: Collection[str]) -> "PlainPhotos":
        """Those with one of these names."""
        return replace(self, paths=[path for path in self.paths if str(path) in names])


Photos = LabelledPhotos | PlainPhotos
"""Images on which models are compared."""


@dataclass
class Comparison:
    """Pixel counts of an extended model against the old one, and of both against labels.

    Args:
        old: outputs of the old model.
        classes: K outputs of the extended model; the old ones come first, in the same order.

    Attributes:
        before, after: (K + 1, K + 1) int64, labels x predictions of the old and of the extended model, see `counts`.
        agreement: (old, K + 1) int64, predictions of the old model x those of the extended one, outside of pixels that are
            labelled as a new class. What the extended one leaves undecided is in the last column: a class that was lost.
        confident: the same where the score of the old model is at least `CONFIDENT`.
        changed: image name -> share of its pixels in `agreement` whose class changed.
    """

    old: int
    classes: int
    before: Tensor = field(init=False)
    after: Tensor = field(init=False)
    agreement: Tensor = field(init=False)
    confident: Tensor = field(init=False)
    changed: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.before, self.after = (torch.zeros(self.classes + 1, self.classes + 1, dtype=torch.int64) for _ in range(2))
        self.agreement, self.confident = (torch.zeros(self.old, self.classes + 1, dtype=torch.int64) for _ in range(2))

    def add(self, photo: Photo, photos: Photos, old: Tensor, scores: Tensor, new: Tensor) -> None:
        """Count an image.

        Args:
            old, scores: (H, W) classes of the old model and their scores.
            new: (H, W) classes of the extended model.
        """
        if photo.labels is None or isinstance(photos, PlainPhotos):
            outside = torch.ones_like(old, dtype=torch.bool)
        else:
            labels = torch.from_numpy(photo.labels.astype(np.int64)).to(old.device)
            outside = (labels < self.old) | (labels >= self.classes)
            if photos.scored:
                annotated = torch.from_numpy(np.asarray(photos.annotated, dtype=bool)).to(old.device)
                self.before += counts(labels, old, annotated)
                self.after += counts(labels, new, annotated)
        pairs = old * (self.classes + 1) + new.where(new != UNDECIDED, self.classes)
        known = outside & (old != UNDECIDED)
        for matrix, where in ((self.agreement, known), (self.confident, known & (scores >= CONFIDENT))):
            matrix += torch.bincount(pairs[where], minlength=matrix.numel()).view_as(matrix).cpu()
        pixels = int(outside.sum())
        self.changed[photo.name] = float((old != new)[outside].sum()) / pixels if pixels else 0.0

    @property
    def iou_before(self) -> np.ndarray:
        """IoU of the old model by labels: (K,), NaN where no label was seen."""
        return label_iou(self.before.numpy())

    @property
    def iou_after(self) -> np.ndarray:
        """IoU of the extended model by labels: (K,), NaN where no label was seen."""
        return label_iou(self.after.numpy())

    @property
    def old_agreement(self) -> np.ndarray:
        """IoU of the extended model with the old model's predictions as labels: (old,), NaN where it never predicted."""
        return class_iou(self._square(self.agreement))[: self.old]

    def _square(self, matrix: Tensor) -> np.ndarray:
        """(K, K + 1), with rows of 0 for new classes, which the old model never predicts."""
        return torch.cat([matrix, matrix.new_zeros(self.classes - self.old, self.classes + 1)]).numpy()

    @property
    def learned(self) -> float | None:
        """Mean IoU of the new classes by labels."""
        return mean_over(self.iou_after, np.arange(self.classes) >= self.old)

    @property
    def agreed(self) -> float | None:
        """Mean of `old_agreement`."""
        return mean_over(self.old_agreement, np.ones(self.old, dtype=bool))

    @property
    def score(self) -> float:
        """Harmonic mean of `learned` and `agreed`; only one of them where the other was not measured."""
        both = harmonic(self.agreed, self.learned)
        return both if both is not None else self.agreed or self.learned or 0.0

    def disagreement(self, *, confident: bool) -> float | None:
        """Share of pixels whose class changed, of all pixels or of confident ones; None without pixels."""
        matrix = self.confident if confident else self.agreement
        return 1 - float(matrix[:, : self.old].diag().sum()) / total if (total := int(matrix.sum())) else None


def counts(labels_HW: Tensor, predictions_HW: Tensor, annotated_K: Tensor) -> Tensor:
    """Pixel counts (K + 1, K + 1) int64 on CPU: labels x predictions.

    The last row is "none of the annotated classes", in which only predictions of annotated classes are counted, as others
    may be right. Background that is predicted as a class that is not annotated is an error of background, but in the last
    column: it does not count against that class. Undecided pixels are in the last column too, misses of their label. Pixels
    labelled 255 are not counted.

    Example:
        >>> labels, predictions = torch.tensor([0, 0, 1, 2, 2, 255]), torch.tensor([0, 1, 1, 1, 0, 1])
        >>> counts(labels, predictions, torch.tensor([True, False]))
        tensor([[1, 0, 1],
                [0, 1, 0],
                [1, 0, 0]])
    """
    classes = len(annotated_K)
    undecided = predictions_HW == UNDECIDED
    uncertain = ~annotated_K[predictions_HW] & ~undecided
    counted = (labels_HW <= classes) & (labels_HW != IGNORE) & ~((labels_HW == classes) & uncertain)
    columns = predictions_HW.where(~((labels_HW == BACKGROUND) & uncertain | undecided), classes)
    cells = (labels_HW * (classes + 1) + columns)[counted]
    return torch.bincount(cells, minlength=(classes + 1) ** 2).view(classes + 1, classes + 1).cpu()


def label_iou(matrix: np.ndarray) -> np.ndarray:
    """IoU of each class of a matrix (K + 1, K + 1) of `counts`: (K,), NaN where there is no label.

    Example:
        >>> label_iou(np.array([[2, 0, 0], [1, 1, 0], [0, 2, 0]]))
        array([0.66666667, 0.25      ])
    """
    hits, truth, predicted = np.diag(matrix)[:-1], matrix.sum(axis=1)[:-1], matrix.sum(axis=0)[:-1]
    return np.divide(hits, truth + predicted - hits, out=np.full(len(hits), np.nan), where=truth > 0)


def compare(
    old: Segmenter,
    extended: Sequence[Segmenter],
    groups: Iterable[Photos],
    classes: int,
    inference: Inference = WHOLE,
    on_image: Callable[[], None] = lambda: None,
) -> list[Comparison]:
    """Compare extended models with the old one, in one pass over the images.

    Args:
        classes: outputs of the extended models.
        on_image: called after each image, for progress.
    """
    outputs = sum(old.widths) - old.options.unknown
    done = [Comparison(outputs, classes) for _ in extended]
    for photos in groups:
        for photo in photos:
            predicted, scores = predict_with_scores(old, photo.image, inference)
            for one, segmenter in zip(done, extended, strict=True):
                one.add(photo, photos, predicted, scores, predict_with_scores(segmenter, photo.image, inference)[0])
            on_image()
    return done
