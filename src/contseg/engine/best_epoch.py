"""`training.keep=best`: the epoch with the best score on held-out images."""

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.evaluation.metrics import class_iou, mean_over
from contseg.methods.method import Method
from contseg.models.segmenter import Segmenter
from contseg.scenarios.step import Step


def validation_rows(step: Step) -> int:
    """Number of rows of the confusion matrix over held-out images: the classes, and the label "no annotated class", which
    is never predicted. (With 255 classes no value is left for this label, and such pixels are ignored.)
    """
    return min(step.seen_count + 1, IGNORE)


def validation_score(confusion: np.ndarray, step: Step) -> float | None:
    """Mean IoU over the classes that have a label in the held-out images, including background if it is annotated.

    If old classes are not annotated, background and old classes are excluded. Outside the annotated classes any of them may
    be predicted, so that forgetting is not rewarded, while a new class counts as an error.

    Args:
        confusion: (`validation_rows`, `validation_rows`), rows are the truth.

    Returns:
        in [0, 1], or None if no held-out pixel has a label of the step.

    Example:
        >>> step = Step.of(["background", "cat", "dog"], old=2)
        >>> remembers = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 6, 0], [50, 20, 1, 0]])
        >>> forgot = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 6, 0], [70, 0, 1, 0]])
        >>> validation_score(remembers, step), validation_score(forgot, step)
        (0.75, 0.75)
    """
    return mean_over(class_iou(confusion)[: step.seen_count], np.ones(step.seen_count, dtype=bool))


def validation_scope(step: Step) -> str | None:
    """A sentence on the classes that the score of a step excludes, or None if it covers all classes."""
    annotated = step.val.annotated
    if bool(annotated[1 : step.old_count].all()):
        return None
    names = [name for name, marked in zip(step.table.names, annotated, strict=True) if marked]
    shown = ", ".join(names) if len(names) <= 4 else f"the {len(names)} classes"
    return (
        f"training.keep=best compares epochs by {shown} alone, which the step annotates;"
        " old classes and background have no labels here, so the score does not measure forgetting"
    )


@dataclass
class BestEpoch:
    """The best epoch so far: its weights and the state of the method.

    Attributes:
        kept: `score`, `epoch`, `model`, `method`; empty before the first score. Saved in `StepState`.
    """

    kept: dict[str, Any] = field(default_factory=dict)

    def offer(self, epoch: int, score: float | None, student: Segmenter, method: Method) -> None:
        """Keep an epoch if its score is higher than all scores before; epochs without a score are not kept."""
        if score is None or (self.kept and score <= self.kept["score"]):
            return
        model: dict[str, Tensor] = {name: value.detach().cpu().clone() for name, value in student.state_dict().items()}
        state = copy.deepcopy(method.state_dict())
        self.kept = {"score": score, "epoch": epoch, "model": model, "method": state}

    def restore(self, student: Segmenter, method: Method) -> None:
        """Restore the weights and the state of the method; if no epoch has a score, the last epoch stays."""
        if self.kept:
            student.load_state_dict(self.kept["model"])
            method.load_state_dict(copy.deepcopy(self.kept["method"]))

    def describe(self, step: int) -> str:
        """A line that reports which epoch is kept."""
        if not self.kept:
            return (
                f"step {step}: training.keep=best keeps the last epoch, as no held-out image has a label of this step;"
                " raise scenario.validation"
            )
        return f"step {step}: epoch {self.kept['epoch']} is kept, {100 * self.kept['score']:.1f} mIoU on held-out images"
