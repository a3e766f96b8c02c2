"""Measure a model on a labelled folder; classes are matched by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contseg.data.classes import UNDECIDED, ClassTable
from contseg.data.datasets.labelled import Unlabelled, all_names, open_labelled
from contseg.errors import ContsegError
from contseg.evaluation.inference import WHOLE, Inference
from contseg.evaluation.metrics import BACKGROUND, mean_over
from contseg.evaluation.predict import predict_image
from contseg.extension.measure import LabelledPhotos, counts, label_iou
from contseg.extension.old_images import NO_OPTIONS, samples_by_name
from contseg.models.segmenter import Segmenter


@dataclass(frozen=True)
class Measured:
    """The result of `measure_folder`.

    Args:
        iou: class name -> IoU in [0, 1], for all classes of the model; None where the folder does not label the class.
        images: number of images.
        notes: findings, one line each.
    """

    iou: dict[str, float | None]
    images: int
    notes: tuple[str, ...]

    @property
    def mean(self) -> float | None:
        """Mean IoU of the measured classes, with background."""
        values = np.array([np.nan if value is None else value for value in self.iou.values()])
        return mean_over(values, np.ones(len(values), dtype=bool))

    def as_json(self) -> dict[str, Any]:
        """`iou`, `mean_iou`, `images` and `notes`."""
        return {"iou": self.iou, "mean_iou": self.mean, "images": self.images, "notes": list(self.notes)}


def measure_folder(
    segmenter: Segmenter,
    classes: ClassTable,
    folder: Path,
    *,
    inference: Inference = WHOLE,
    unlabelled: Unlabelled | None = None,
    options: Mapping[str, Any] = NO_OPTIONS,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Measured:
    """Measure a model on a folder in any format of `open_labelled`: on its test images if its files list them, otherwise on
    all images.

    A class that the model lacks is an error wherever a class of the folder is predicted. Pixels without a label are not
    counted.

    Args:
        classes: of the segmenter, in output order.
        unlabelled: the meaning of pixels without a label; default: as the format of the folder defines it.
        options: further options of `open_labelled`.
        progress: called with (done, total).

    Raises:
        ContsegError: the folder has no known format, no image, or no class of the model; or a mask has ids that are not in
            its class list.
    """
    dataset = open_labelled(folder, unlabelled=unlabelled, **options)
    names = dataset.names("test") if dataset.is_divided else all_names(dataset)
    samples, matched = samples_by_name(dataset, classes, names)
    matrix = torch.zeros(len(classes) + 1, len(classes) + 1, dtype=torch.int64)
    annotated = torch.from_numpy(samples.annotated)
    elsewhere = torch.zeros(len(classes), dtype=torch.int64)
    for done, photo in enumerate(LabelledPhotos(samples), start=1):
        assert photo.labels is not None
        try:
            predicted = torch.from_numpy(predict_image(segmenter, photo.image, inference)).long()
        except ContsegError as error:
            raise ContsegError(f"{dataset.image_path(photo.name)}: {error}") from None
        labels = torch.from_numpy(photo.labels.astype(np.int64))
        matrix += counts(labels, predicted, annotated)
        elsewhere += torch.bincount(predicted[(labels == BACKGROUND) & (predicted != UNDECIDED)], minlength=len(classes))
        progress(done, len(names))
    values = label_iou(matrix.numpy())
    iou = {name: None if np.isnan(value) else float(value) for name, value in zip(classes.names, values, strict=True)}
    notes = [*dataset.notes, *matched]
    if lacking := [name for name, number in zip(dataset.classes.names, dataset.classes.ids, strict=True)
                   if samples.lookup[number] == len(classes)]:  # fmt: skip
        notes.append(f"{', '.join(lacking)}: not in the model, so a class of the folder that is predicted there is an error")
    open_ended = elsewhere * ~annotated
    share = 100 * int(open_ended.max()) / max(1, int(elsewhere.sum()))
    if annotated[BACKGROUND] and share >= 0.05:
        name = classes.names[int(open_ended.argmax())]
        notes.append(f"{share:.1f} % of background is predicted as {name}, which the folder does not label")
    return Measured(iou, len(names), tuple(notes))
