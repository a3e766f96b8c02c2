"""The masks that an image has to be divided into; `contseg.scenarios.segments` makes them from labels."""

from typing import NamedTuple

import torch
from torch import Tensor


class MaskTargets(NamedTuple):
    """The targets of one image.

    Args:
        classes: (T,) int64, output of each mask.
        masks: (T, H, W) bool.
    """

    classes: Tensor
    masks: Tensor

    def followed_by(self, others: "MaskTargets") -> "MaskTargets":
        """These targets, then others, such as pseudo labels."""
        return MaskTargets(torch.cat([self.classes, others.classes]), torch.cat([self.masks, others.masks]))

    def covered(self) -> Tensor:
        """(H, W) bool, whether a pixel is in any mask."""
        return self.masks.any(dim=0)
