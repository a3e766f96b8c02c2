"""UCD as the toolbox cssegmentation computes it."""

from dataclasses import dataclass

from torch import Tensor

from contseg.methods.ucd import UCD
from contseg.models.layers import resize
from contseg.scenarios.step import Step


@dataclass(frozen=True)
class UCDReleased(UCD):
    """What the re-implementation computes differently; the original code was not available.

    * Labels are resized bilinearly, as if class numbers were quantities, so that borders get classes between their two; and
      through 8 bits, so that ignored pixels become background.
    * Pairs of annotated pixels are weighted by the teacher, which does not know the new classes.
    * The largest similarity of an anchor is subtracted in the numerator and not in the sum over other classes.
    """

    variant = "released"

    shifted = True
    certain_truth = False

    def small_labels(self, labels_BHW: Tensor, size: tuple[int, int], step: Step) -> Tensor:
        """Labels at the size of the features: means of class numbers, background where there is no such class."""
        small = in_8_bits(labels_BHW, size)
        return small.where((small >= 0) & (small < step.seen_count), 0)


def in_8_bits(labels_BHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels resized bilinearly, rounded down, and wrapped into -128 ... 127, so that 255 is -1: (B, *size) int64.

    Example:
        >>> import torch
        >>> in_8_bits(torch.tensor([[[0, 5], [255, 255]]]), (2, 1)).flatten()
        tensor([ 2, -1])
    """
    values = resize(labels_BHW[:, None].double(), size)[:, 0].long()
    return (values + 128) % 256 - 128
