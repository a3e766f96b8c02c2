"""What an extension learns, and what a method makes of it."""

from dataclasses import dataclass, field
from typing import Any

from contseg.data.classes import ClassTable
from contseg.evaluation.inference import Inference
from contseg.extension.data import ExtensionData
from contseg.extension.folder import Progress, quiet
from contseg.extension.old_images import OldImages
from contseg.methods.gaussian.sums import GaussianSums
from contseg.models.segmenter import Segmenter


@dataclass(frozen=True)
class Task:
    """What the methods learn.

    Args:
        old: the model to extend; no method changes it.
        inference: of the model.
        data: the labelled images.
        table: all classes, in output order.
        sums: statistics of a Gaussian head, if the model has one.
        readout: how its weights follow from them, see `contseg.methods.gaussian.readout.readout`.
        old_images: of `--keep`, if given.
        seconds: time for all gradient methods together.
    """

    old: Segmenter
    inference: Inference
    data: ExtensionData
    table: ClassTable
    sums: GaussianSums | None = None
    readout: dict[str, Any] = field(default_factory=dict)
    old_images: OldImages | None = None
    seconds: float = 300.0
    seed: int = 0
    progress: Progress = quiet


@dataclass(frozen=True)
class Candidate:
    """The result of a method.

    Args:
        segmenter: None if the method failed.
        seconds: that it took.
        note: how it ended, in a few words.
        sums: statistics of a Gaussian head, to store.
        readout: how its weights follow from them, to repeat.
    """

    name: str
    segmenter: Segmenter | None
    seconds: float
    note: str = ""
    sums: GaussianSums | None = field(default=None, repr=False)
    readout: dict[str, Any] = field(default_factory=dict)
