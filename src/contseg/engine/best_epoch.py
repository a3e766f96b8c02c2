"""`training.keep=best`: the epoch of a step that did best on held-out images, and what that does not show."""

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
    """Rows of the confusion matrix over held-out images: the classes, and last "none of those annotated here", a label that
    is no prediction. (With 255 classes there is no label left for it, and it is ignored.)
    """
    return min(step.seen_count + 1, IGNORE)


def validation_score(confusion: np.ndarray, step: Step) -> float | None:
    """Mean IoU over the classes that have a label in the held-out images, background among them where it is annotated.

    Where old classes are not annotated, background and old classes take no part: whether a pixel outside the annotated
    classes is predicted as one or the other changes nothing, so that forgetting never pays. A new class that is predicted
    there is an error of that class.

    Args:
        confusion: (`validation_rows`, `validation_rows`), rows are the truth.

    Returns:
        in [0, 1], or None where no held-out pixel has a label of the step.

    Example:
        >>> from types import SimpleNamespace
        >>> step = SimpleNamespace(seen_count=3)  # background, an old class, a new one
        >>> knows = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 6, 0], [50, 20, 1, 0]])
        >>> forgot = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 6, 0], [70, 0, 1, 0]])
        >>> validation_score(knows, step), validation_score(forgot, step)
        (0.75, 0.75)
    """
    return mean_over(class_iou(confusion)[: step.seen_count], np.ones(step.seen_count, dtype=bool))


def validation_scope(step: Step) -> str | None:
    """One sentence on what the score of a step cannot show, or None where it covers everything the model knows."""
    annotated = step.val.annotated
    if bool(annotated[1 : step.old_count].all()):
        return None
    names = [name for name, marked in zip(step.table.names, annotated, strict=True) if marked]
    shown = ", ".join(names) if len(names) <= 4 else f"the {len(names)} classes"
    return (
        f"training.keep=best compares epochs by {shown} alone, which the step annotates;"
        " old classes and background have no labels here, so the score cannot notice forgetting"
    )


@dataclass
class BestEpoch:
    """The best epoch so far, whole: its weights and what the method remembered at its end.

    Attributes:
        kept: `score`, `epoch`, `model`, `method`; empty before an epoch was measured. Part of the state of a run.
    """

    kept: dict[str, Any] = field(default_factory=dict)

    def offer(self, epoch: int, score: float | None, student: Segmenter, method: Method) -> None:
        """Keep an epoch if it is better than all before; the first of equals stays. None is no score and never kept."""
        if score is None or (self.kept and score <= self.kept["score"]):
            return
        model: dict[str, Tensor] = {name: value.detach().cpu().clone() for name, value in student.state_dict().items()}
        remembered = copy.deepcopy(method.state_dict())
        self.kept = {"score": score, "epoch": epoch, "model": model, "method": remembered}

    def restore(self, student: Segmenter, method: Method) -> None:
        """Put weights and the method's memory back; nothing where no epoch was measured, and the last one stays."""
        if self.kept:
            student.load_state_dict(self.kept["model"])
            method.load_state_dict(copy.deepcopy(self.kept["method"]))

    def told(self, step: int) -> str:
        """Which epoch is kept, for the log."""
        if not self.kept:
            return (
                f"step {step}: training.keep=best keeps the last epoch, as no held-out image has a label of this step;"
                " raise scenario.validation"
            )
        return f"step {step}: epoch {self.kept['epoch']} is kept, {100 * self.kept['score']:.1f} mIoU on held-out images"
