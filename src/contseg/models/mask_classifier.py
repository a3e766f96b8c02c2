"""The class head of a network that classifies masks: rows per step, and no-object as a parameter of its own.

No-object is evaluated last, whatever the number of classes, so that old classes keep their index. Only the index of the
last output moves: nothing may be stored by it.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from contseg.errors import ContsegError, did_you_mean

MaskStart = Literal["random", "no-object"]
"""How the rows of new classes start."""


class MaskClassifier(nn.Module):
    """Class logits of queries, no-object last.

    Args:
        channels: of a query.
        widths: classes of each step.

    Attributes:
        none: the row of no-object.
        steps: the rows of the classes of each step.

    Example:
        >>> classifier = MaskClassifier(8, [3])
        >>> classifier.grow(2, "random")
        >>> classifier(torch.zeros(1, 5, 8)).shape, classifier.widths
        (torch.Size([1, 5, 6]), [3, 2])
    """

    def __init__(self, channels: int, widths: Sequence[int]):
        super().__init__()
        self.channels = channels
        self.none = nn.Linear(channels, 1)
        self.steps = nn.ModuleList(nn.Linear(channels, width) for width in widths)

    @property
    def widths(self) -> list[int]:
        """Classes of each step, without no-object."""
        return [_linear(step).out_features for step in self.steps]

    def forward(self, queries_BQD: Tensor) -> Tensor:
        """(B, Q, D) to (B, Q, K + 1)."""
        return torch.cat([*(step(queries_BQD) for step in self.steps), self.none(queries_BQD)], dim=-1)

    @torch.no_grad()
    def grow(self, count: int, start: MaskStart = "random") -> None:
        """Add classes before no-object.

        With `random`, all old logits stay bit-equal. `no-object` is the start of MiB: new rows are copies of the row of
        no-object, and the biases of all of them, no-object included, are lowered by log(count + 1), so that the
        probabilities of old classes are unchanged and no-object's is divided equally.

        Raises:
            ContsegError: an unknown start.

        Example:
            >>> classifier, queries = MaskClassifier(8, [3]), torch.rand(1, 5, 8)
            >>> before = classifier(queries).softmax(dim=2)
            >>> classifier.grow(4, "no-object")
            >>> torch.allclose(classifier(queries).softmax(dim=2)[..., :3], before[..., :3])
            True
        """
        if start not in get_args(MaskStart):
            raise ContsegError(f"grow: cannot start new classes from '{start}'; {did_you_mean(start, get_args(MaskStart))}")
        new = nn.Linear(self.channels, count).to(self.none.weight)
        if start == "no-object":
            self.none.bias.sub_(math.log(count + 1))
            new.weight.copy_(self.none.weight.expand_as(new.weight))
            new.bias.copy_(self.none.bias.expand_as(new.bias))
        self.steps.append(new)


def _linear(step: nn.Module) -> nn.Linear:
    assert isinstance(step, nn.Linear)
    return step
