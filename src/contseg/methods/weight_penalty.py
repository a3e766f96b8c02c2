"""The base of EWC, PI and RW: a penalty on the change of weights since the previous step, by their importance."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from contseg.losses.regularisers import add_penalty_gradients
from contseg.methods.method import Method, StepContext
from contseg.options import Weight

Learning = Mapping[str, Tensor]
"""Parameters by name."""


@dataclass(frozen=True)
class WeightPenalty(Method, ABC):
    """Cross-entropy + importance * sum w (p - p°)^2, over the weights that existed before the step.

    The penalty is not a term of `losses`: its gradient is added after the importances have been estimated from the gradient
    of the losses alone. So it is not part of the reported loss, and `training.clip` limits the sum of both gradients.

    The weights w of a tensor reach 1 (2 for RW), so the penalty diverges if the learning rate exceeds 0.68 / importance
    (Nesterov momentum of 0.9). The importance of 500 was published with a rate of 0.001.

    `state` contains tensors named `kind.parameter`. During a step these are `anchor`, the weights at its start; `strength`,
    w; and the estimates of a subclass. Between steps they are the importances. Each kind is as large as the weights.

    Args:
        importance: weight of the penalty.
    """

    importance: Weight = 500.0

    @abstractmethod
    def strength(self, name: str) -> Tensor | None:
        """Weights w of a parameter in the next step. None for a new one, which has no importance and no penalty."""

    @abstractmethod
    def estimate(self, learning: Learning, gradients: list[Tensor]) -> None:
        """Update the importances with the gradients of the losses."""

    def before_step(self, context: StepContext) -> None:
        """Store the current weights as anchors, and the strength of those that have an importance."""
        for name, parameter in context.student.named_parameters():
            if not parameter.requires_grad:
                continue
            self.state[f"anchor.{name}"] = copied(parameter)
            strength = self.strength(name)
            if strength is not None:
                self.state[f"strength.{name}"] = strength.to(parameter.device)

    @torch.no_grad()
    def after_backward(self, context: StepContext) -> None:
        """Estimate importances from the gradients of the losses, then add the gradients of the penalty."""
        learning = {name: p for name, p in context.student.named_parameters() if p.grad is not None}
        self.estimate(learning, _gradients(learning))
        pulled = self.pulled(learning)
        if pulled:  # PyTorch does not accept empty lists
            anchors, strengths = self.recall("anchor", pulled), self.recall("strength", pulled)
            add_penalty_gradients(_gradients(pulled), list(pulled.values()), anchors, strengths, weight=self.importance)

    def after_step(self, context: StepContext) -> None:
        """Drop the anchors of the step."""
        self.forget("anchor", "strength")

    def pulled(self, learning: Learning) -> Learning:
        """The parameters with an importance."""
        return {name: parameter for name, parameter in learning.items() if f"strength.{name}" in self.state}

    # --- state ----------------------------------------------------------------------------------------------------------

    def recall(self, kind: str, learning: Learning, first: Callable[[Tensor], Tensor] = torch.zeros_like) -> list[Tensor]:
        """Tensors of a kind on the devices of their parameters; `first` creates missing ones from the parameter."""
        for name, parameter in learning.items():
            found = self.state.get(f"{kind}.{name}")
            self.state[f"{kind}.{name}"] = first(parameter) if found is None else found.to(parameter.device)
        return [self.state[f"{kind}.{name}"] for name in learning]

    def remember(self, kind: str, learning: Learning, values: Iterable[Tensor]) -> None:
        """Replace the tensors of a kind."""
        self.state.update({f"{kind}.{name}": value for name, value in zip(learning, values, strict=True)})

    def remember_finite(self, kind: str, learning: Learning, values: list[Tensor], before: list[Tensor]) -> None:
        """Replace the tensors of a kind unless a gradient overflowed: then fp16 skips the update too."""
        norms = torch._foreach_norm(_gradients(learning), torch.inf)
        finite = torch.stack(list(norms)).isfinite().all()
        self.remember(kind, learning, [new.where(finite, old) for new, old in zip(values, before, strict=True)])

    def forget(self, *kinds: str) -> None:
        """Drop the tensors of these kinds."""
        for key in [key for key in self.state if key.partition(".")[0] in kinds]:
            del self.state[key]


def copied(parameter: Tensor) -> Tensor:
    """A copy of the current value of a parameter, without gradient."""
    return parameter.detach().clone()


def fisher_of_pass(method: Method, context: StepContext) -> dict[str, Tensor]:
    """Mean squared gradient of the supervised term over `context.loader`, for a step 0 that was not trained here.

    The student runs in evaluation mode; its weights and `.grad` are unchanged. As in training, a gradient is that of an
    update, so it is averaged over ranks and passes before it is squared.
    """
    student, ranks = context.student, context.ranks
    learning = {name: parameter for name, parameter in student.named_parameters() if parameter.requires_grad}
    fishers, batches = [torch.zeros_like(parameter) for parameter in learning.values()], 0
    training = student.training
    student.eval()
    try:
        remaining = iter(context.loader)
        while group := list(islice(remaining, context.passes)):
            context.labels_of_update = (lambda group=group: [one.labels for one in group]) if len(group) > 1 else None
            total = [torch.zeros_like(parameter) for parameter in learning.values()]
            for batch in group:
                output = student(student.normalise(batch.images))
                loss = method.supervise(output, batch, context) / len(group)
                # `backward` would run the hooks that average over ranks; parameters without effect in evaluation mode
                # (auxiliary heads) get 0
                gradients = torch.autograd.grad(loss, list(learning.values()), allow_unused=True, materialize_grads=True)
                torch._foreach_add_(total, gradients)
            averaged = [ranks.sum(gradient) / ranks.count for gradient in total]
            torch._foreach_addcmul_(fishers, averaged, averaged)
            batches += 1
    finally:
        context.labels_of_update = None
        student.train(training)
    return {name: fisher / max(1, batches) for name, fisher in zip(learning, fishers, strict=True)}


def _gradients(learning: Learning) -> list[Tensor]:
    return [parameter.grad for parameter in learning.values() if parameter.grad is not None]
