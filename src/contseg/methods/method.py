"""What a continual method is: a few calls, all optional but `losses`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from contseg.data.classes import IGNORE
from contseg.errors import ContsegError
from contseg.losses.cross_entropy import cross_entropy
from contseg.models.classifier import Start
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.ranks import Ranks
from contseg.scenarios.batch import Batch
from contseg.scenarios.step import Step


@dataclass
class StepContext:
    """What a method may look at, beside the batch and the outputs.

    Args:
        student: the segmenter that learns (the plain module, without wrappers).
        teacher: frozen copy of the last step's segmenter, or None at step 0 and for methods that need none.
        step: what is new and what is old.
        epoch: the current epoch of the step, from 0.
        epochs: of the step.
        loader: one pass over the step's own training images (no exemplars of a memory), as batches on the device, augmented
            and drawn as in no epoch of training, the same whenever it is iterated. As in an epoch, it is whole updates of
            `batch` x `accumulate` images: what is left over is not in it, and a step of fewer images repeats some to fill
            one. A rank gets its share of each batch.
        predict_teacher: normalised forward of the teacher at the run's precision.
        generator: for draws of the method, on CPU, derived from (seed, step, iteration).
        ranks: sums and gathers over processes.
        average: what the supervised term is the mean over, see `TrainingOptions`.
        passes: forward passes per update (`training.accumulate`).
        labels_of_update: the final labels of every pass of this update, those of the batch at hand among them; None where
            an update has one pass.
    """

    student: Segmenter
    teacher: Segmenter | None
    step: Step
    epochs: int
    loader: Iterable[Batch]
    ranks: Ranks = field(default_factory=Ranks)
    generator: torch.Generator = field(default_factory=torch.Generator)
    predict_teacher: Callable[[Batch], SegmenterOutput] | None = None
    epoch: int = 0
    average: Literal["all", "valid"] = "all"
    passes: int = 1
    labels_of_update: Callable[[], Sequence[Tensor]] | None = None

    def mean_over_valid(
        self, loss_BHW: Tensor, labels_BHW: Tensor, derive: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """The mean of a loss over the pixels of all ranks that are not ignored; 0 where all are.

        Averaged over ranks and over the passes of an update, the results (and their gradients) are the mean over the large
        batch.

        Args:
            labels_BHW: the batch's labels (the tensor itself), or those that `derive` makes of them.
            derive: how; needed where an update has several passes, to count in the others too.

        Raises:
            ContsegError: an update has several passes, and the labels are others than the batch's.
        """
        if self.labels_of_update is None:
            valid = self.ranks.sum((labels_BHW != IGNORE).sum()) / self.ranks.count
        else:
            labels = self.labels_of_update()
            if derive is None and not any(labels_BHW is one for one in labels):
                raise ContsegError(
                    "training.accumulate: the method averages over labels of its own, which cannot be counted in all"
                    " passes of an update; give mean_over_valid a `derive`, or set training.accumulate=1"
                )
            counts = [((derive(one) if derive else one) != IGNORE).sum() for one in labels]
            valid = self.ranks.sum(torch.stack(counts).sum()) / self.ranks.count / len(labels)
        return loss_BHW.sum() / valid.clamp(min=1 / self.ranks.count / max(1, self.passes))


@dataclass(frozen=True)
class Method(ABC):
    """A way of learning a step. Subclasses are frozen dataclasses of hyper-parameters that read like their paper.

    What a method must remember between steps goes into `state`, a dictionary of tensors: it is saved with every
    checkpoint and is there again after a resume. Nothing else in a method changes.

    Class attributes:
        name: in recipes.
        needs_teacher: whether later steps run the old segmenter.
        new_classes_start_from: how `grow` begins.
        handles_unknown: whether it can learn with an output "unknown" before background (label policy `ssul`).
        needs_unknown: whether it cannot learn without one.
        first_step_is_plain: step 0 is plain cross-entropy, and nothing of it is remembered, so that it is shared with other
            such methods. It holds for the class that sets it, not for what is derived from that.

    Attributes or properties:
        taps: features that `losses` reads, see `Segmenter.forward`; asked for when there is a teacher.
        first_taps: features that it reads without a teacher.
        inert_terms: terms that by design reach no trainable parameter (only of `released` variants).
    """

    name: ClassVar[str]
    needs_teacher: ClassVar[bool] = False
    new_classes_start_from: ClassVar[Start] = "random"
    handles_unknown: ClassVar[bool] = False
    needs_unknown: ClassVar[bool] = False
    first_step_is_plain: ClassVar[bool] = False

    @property
    def taps(self) -> tuple[str, ...]:
        """None, unless the method reads features."""
        return ()

    @property
    def first_taps(self) -> tuple[str, ...]:
        """None, unless the method reads features without a teacher, at step 0."""
        return ()

    @property
    def whole_batch_terms(self) -> tuple[str, ...]:
        """What relates the images of a batch to each other, or moves `state` with every batch.

        Over several passes (`training.accumulate`) it is not what it is over the large batch, so it is refused there. None,
        unless a method has such.
        """
        return ()

    @property
    def inert_terms(self) -> frozenset[str]:
        """None, unless a term trains nothing by design."""
        return frozenset()

    state: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    @abstractmethod
    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """The terms of the objective, name to scalar; their sum is minimised.

        `batch` went through `relabel`; `teacher` is None at step 0.
        """

    def check(self, network: NetworkOptions, steps: Sequence[Step]) -> None:
        """Whether this method can learn these steps with this network; before anything is made.

        Raises:
            ContsegError: it cannot; here, because the network lacks a feature that it reads.
        """
        there = network.taps
        for tap in (*self.taps, *self.first_taps):
            if tap not in there:
                raise ContsegError(
                    f"method.name: '{self.name}' reads {tap}, and {network.backbone.name} with {network.head.name} has only"
                    f" {', '.join(there)}; set network.head=deeplabv3-ssul, or use another method"
                )

    def relabel(self, batch: Batch, teacher: SegmenterOutput | None, context: StepContext) -> Batch:
        """The batch with the method's final labels (pseudo labels); once per batch, before the losses, without gradient."""
        return batch

    def supervise(self, logits_BKHW: Tensor, batch: Batch, context: StepContext) -> Tensor:
        """The supervised term on full-size logits, a scalar; also applied to every auxiliary output times its weight.

        Mean over all pixels, or over those that are not ignored where the context says so (0 where all are).
        """
        loss = cross_entropy(logits_BKHW, batch.labels)
        return loss.mean() if context.average == "all" else context.mean_over_valid(loss, batch.labels)

    def first_step_key(self) -> dict[str, Any]:
        """What of this method changes step 0; `{}` is plain cross-entropy, shared with other methods through the cache.

        By default all of it: name and hyper-parameters. Methods with `first_step_is_plain` give `{}`.
        """
        if vars(type(self)).get("first_step_is_plain", False):  # a derived class may change what this one promised
            return {}
        key: dict[str, Any] = {"method": self.name}
        for each in fields(self):
            if each.init:
                value = getattr(self, each.name)
                key[each.name] = value if isinstance(value, bool | int | float | str | None) else repr(value)
        return key

    def prepare(self, segmenter: Segmenter, step: Step) -> None:
        """Surgery after `grow`, before optimiser and ranks; deterministic, repeated at resume."""

    def parameter_groups(self, segmenter: Segmenter, step: Step) -> list[dict[str, Any]]:
        """Groups for the optimiser; `lr_factor` multiplies the step's learning rate, other keys go to the optimiser."""
        return [{"params": [p for p in segmenter.parameters() if p.requires_grad], "lr_factor": 1.0}]

    def before_step(self, context: StepContext) -> None:
        """Once before the first batch of a step, teacher at hand; what it finds goes into `state`."""

    def after_backward(self, context: StepContext) -> None:
        """After every backward pass of an update, gradients unscaled and averaged over ranks; may add to `.grad`."""

    def after_update(self, context: StepContext) -> None:
        """After every update of the weights."""

    def after_step(self, context: StepContext) -> None:
        """After the last update of a step, teacher still alive."""

    def state_dict(self) -> dict[str, Tensor]:
        """What to remember, on CPU."""
        return {name: value.detach().cpu() for name, value in self.state.items()}

    def load_state_dict(self, saved: dict[str, Tensor]) -> None:
        """Put back what `state_dict` gave."""
        self.state.clear()
        self.state.update(saved)
