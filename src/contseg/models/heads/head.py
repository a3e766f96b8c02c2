"""Base class of heads."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from contseg.models.classifier import Start
from contseg.models.initialisation import initialise_convolutions
from contseg.models.names import Initialisation
from contseg.models.output import AuxiliaryOutput
from contseg.ranks import Ranks


class Head(nn.Module):
    """From stages of a backbone to the input of the classifier.

    A subclass defines `forward`, `uses` and `width`. Everything else does nothing by default.

    Attributes:
        uses: the stages whose activated maps `forward` takes, in this order (0 is the first).
        width: channels of the result.
        taps: names of the head's own features, see `tap`.
        output_tap: the one of `taps` that is the result of `forward`, if there is one.

    A head whose last layer is a dropout also defines `undropped` and `dropouts`, so that what comes before can be kept while
    it is frozen (`training.features`).

    Example:
        >>> class Last(Head):
        ...     uses, width = (3,), 64
        ...     def forward(self, maps):
        ...         return maps[0]
        >>> Last()([torch.zeros(1, 64, 2, 2)]).shape
        torch.Size([1, 64, 2, 2])
    """

    uses: tuple[int, ...]
    width: int
    taps: tuple[str, ...] = ()
    output_tap: str | None = None

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i) of the stages in `uses` to (B, width, H, W)."""
        raise TypeError(f"{type(self).__name__} has no forward; heads override it")

    def run(self, maps: list[Tensor]) -> tuple[Tensor, Any]:
        """The result of `forward`, and intermediate results for `auxiliary` and `observe` (by default None)."""
        return self(maps), None

    def auxiliary(self, passed: Any) -> list[AuxiliaryOutput]:
        """Additional outputs in training.

        Args:
            passed: intermediate results of `run`.
        """
        return []

    def tap(self, name: str, activated: Callable[[int], Tensor], decoded_BCHW: Tensor) -> Tensor:
        """The feature of one of `taps`.

        Args:
            activated: returns the activated map of a stage (0 to 3).
            decoded_BCHW: the result of `forward`.
        """
        raise KeyError(name)

    def undropped(self, maps: list[Tensor]) -> Tensor:
        """The result of `forward` before its last dropout; by default it has no dropout."""
        return self(maps)

    def undropped_tap(self, name: str, activated: Callable[[int], Tensor]) -> Tensor:
        """The feature of one of `taps` before its last dropout, for those in `dropouts`; arguments as of `tap`."""
        raise KeyError(name)

    @property
    def dropouts(self) -> dict[str, nn.Module]:
        """The last layers that `undropped` ("head") and `undropped_tap` (the name of the tap) leave out."""
        return {}

    def drop(self, decoded_BCHW: Tensor, tap: str = "head") -> Tensor:
        """Apply what `undropped` or `undropped_tap` left out."""
        dropout = self.dropouts.get(tap)
        return decoded_BCHW if dropout is None else dropout(decoded_BCHW)

    def initialise(self, kind: Initialisation | None = None) -> None:
        """Initialise the convolutions; by default (None) the constructor's weights are kept."""
        if kind is not None:
            initialise_convolutions(self, kind)

    def grow(self, count: int, start: Start) -> None:
        """Add `count` classes to the head's state per class, if it has any."""

    def freeze_unused(self, taps: Sequence[str]) -> None:
        """Freeze layers without a loss when only these taps are computed; ranks would wait for their gradients forever."""

    def observe(
        self,
        passed: Any,
        classifier: nn.Module,
        logits_BKHW: Tensor,
        labels_BHW: Tensor,
        ranks: Ranks,
        generator: torch.Generator,
    ) -> None:
        """Learn from a pass without gradients, once per iteration after the losses.

        Args:
            passed: intermediate results of `run`.
            classifier: the final classifier.
            logits_BKHW: its logits, at feature resolution.
            labels_BHW: the method's final labels, 255 ignored.
            ranks, generator: as of `StepContext`.
        """
