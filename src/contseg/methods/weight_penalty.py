"""What EWC, PI and RW share: weights are pulled to what they were after the last step, important ones more."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from contseg.losses.regularisers import add_penalty_gradients, penalty
from contseg.methods.method import Method, StepContext
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.scenarios.batch import Batch

Learning = Mapping[str, Tensor]
"""Parameters by name."""


@dataclass(frozen=True)
class WeightPenalty(Method):
    """Cross-entropy + importance * sum w (p - p°)^2, over the weights that were there before the step.

    The penalty is no term of `losses`: its gradient is added after the importances have been estimated from the gradient
    of the losses alone. So it is not in the loss that is reported, and `training.clip` limits the sum of both.

    The weights w of a tensor reach 1 (2 for RW), so the pull overshoots and grows where the learning rate is above 0.68 /
    importance (Nesterov momentum of 0.9): the importance of 500 was published with a rate of 0.001.

    `state` holds tensors named `kind.parameter`. During a step: `anchor`, the weights at its start; `strength`, w; and what
    a subclass estimates with. Between steps: the importances. Each kind is as large as the weights.

    Args:
        importance: weight of the penalty.
    """

    importance: float = 500.0

    @abstractmethod
    def strength(self, name: str) -> Tensor | None:
        """The weights w of a parameter in the step that begins, or None where it is free: what is new has no importance."""

    @abstractmethod
    def estimate(self, learning: Learning, gradients: list[Tensor]) -> None:
        """Move the importances, given this update's gradients of the losses."""

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """Cross-entropy; the penalty joins in `after_backward`."""
        return {"cross_entropy": self.supervise(student.logits_at(batch.size), batch, context)}

    def before_step(self, context: StepContext) -> None:
        """Weights are anchored where they are; those that have an importance will be pulled back there."""
        for name, parameter in context.student.named_parameters():
            if not parameter.requires_grad:
                continue
            self.state[f"anchor.{name}"] = copied(parameter)
            strength = self.strength(name)
            if strength is not None:
                self.state[f"strength.{name}"] = strength.to(parameter.device)

    @torch.no_grad()
    def after_backward(self, context: StepContext) -> None:
        """Estimate from the gradient of the losses, then add that of the penalty to it."""
        learning = {name: p for name, p in context.student.named_parameters() if p.grad is not None}
        self.estimate(learning, _gradients(learning))
        held = self.held(learning)
        if held:  # lists of no tensors are refused
            held_by = self.recall("anchor", held), self.recall("strength", held)
            add_penalty_gradients(_gradients(held), list(held.values()), *held_by, weight=self.importance)

    def after_step(self, context: StepContext) -> None:
        """The step's anchors have served."""
        self.forget("anchor", "strength")

    def penalty_of(self, student: Segmenter) -> Tensor:
        """importance * sum w (p - p°)^2 as it stands in the middle of a step: a scalar."""
        held = self.held(dict(student.named_parameters()))
        if not held:
            return torch.zeros(())
        return self.importance * penalty(list(held.values()), self.recall("anchor", held), self.recall("strength", held))

    def held(self, learning: Learning) -> Learning:
        """Those of some parameters that are not free."""
        return {name: parameter for name, parameter in learning.items() if f"strength.{name}" in self.state}

    # --- state ----------------------------------------------------------------------------------------------------------

    def recall(self, kind: str, learning: Learning, first: Callable[[Tensor], Tensor] = torch.zeros_like) -> list[Tensor]:
        """The tensors of a kind, beside their parameters (after a resume they are on CPU); `first` makes what is missing."""
        for name, parameter in learning.items():
            found = self.state.get(f"{kind}.{name}")
            self.state[f"{kind}.{name}"] = first(parameter) if found is None else found.to(parameter.device)
        return [self.state[f"{kind}.{name}"] for name in learning]

    def remember(self, kind: str, learning: Learning, values: Iterable[Tensor]) -> None:
        """Replace the tensors of a kind."""
        self.state.update({f"{kind}.{name}": value for name, value in zip(learning, values, strict=True)})

    def remember_sound(self, kind: str, learning: Learning, values: list[Tensor], before: list[Tensor]) -> None:
        """Replace the tensors of a kind unless a gradient overflowed: fp16 then skips the update, and so do we."""
        norms = torch._foreach_norm(_gradients(learning), torch.inf)
        sound = torch.stack(list(norms)).isfinite().all()
        self.remember(kind, learning, [new.where(sound, old) for new, old in zip(values, before, strict=True)])

    def forget(self, *kinds: str) -> None:
        """Drop the tensors of these kinds."""
        for key in [key for key in self.state if key.partition(".")[0] in kinds]:
            del self.state[key]


def copied(parameter: Tensor) -> Tensor:
    """A parameter as it is now."""
    return parameter.detach().clone()


def fisher_of_pass(method: Method, context: StepContext) -> dict[str, Tensor]:
    """Mean squared gradient of the supervised term over `context.loader`, for a step that was not trained.

    The student is asked in evaluation mode; neither it nor its gradients are touched. As in training, a gradient is that
    of an update, so over several ranks and passes it is averaged first.
    """
    student, ranks = context.student, context.ranks
    learning = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
    fishers, batches = [torch.zeros_like(parameter) for parameter in learning.values()], 0
    trained = student.training
    student.eval()
    try:
        remaining = iter(context.loader)
        while group := list(islice(remaining, context.passes)):
            context.labels_of_update = (lambda group=group: [one.labels for one in group]) if len(group) > 1 else None
            total = [torch.zeros_like(parameter) for parameter in learning.values()]
            for batch in group:
                logits = student(student.normalise(batch.images)).logits_at(batch.size)
                loss = method.supervise(logits, batch, context) / len(group)
                # `backward` would wake the hooks that average over ranks; what only answers in training (auxiliary heads)
                # gets 0
                gradients = torch.autograd.grad(loss, list(learning.values()), allow_unused=True, materialize_grads=True)
                torch._foreach_add_(total, gradients)
            averaged = [ranks.sum(gradient) / ranks.count for gradient in total]
            torch._foreach_addcmul_(fishers, averaged, averaged)
            batches += 1
    finally:
        context.labels_of_update = None
        student.train(trained)
    return {name: fisher / max(1, batches) for name, fisher in zip(learning, fishers, strict=True)}


def _gradients(learning: Learning) -> list[Tensor]:
    return [parameter.grad for parameter in learning.values() if parameter.grad is not None]
