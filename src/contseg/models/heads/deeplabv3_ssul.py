"""The DeepLabV3 head of SSUL, IDEC and LAG: torchvision's pyramid, and three more for distillation."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from contseg.models.heads.head import Head
from contseg.models.initialisation import initialise_convolutions
from contseg.models.layers import conv_norm_act
from contseg.models.names import ASPP_TAPS, Initialisation

DILATIONS = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}


class ProjectedASPP(nn.Module):
    """Atrous pyramid pooling with a norm per branch, reduced by a 1x1 and dropout (as in torchvision).

    Args:
        channels, width: of input and output; each branch has `width` channels too.
        dilations: of the three 3x3 branches.
        dropout: probability that an element is dropped in training.
    """

    def __init__(self, channels: int, width: int, dilations: tuple[int, ...], dropout: float = 0.1):
        super().__init__()
        self.branches = nn.ModuleList(
            [conv_norm_act(channels, width)] + [conv_norm_act(channels, width, 3, dilation) for dilation in dilations]
        )
        self.pooled = conv_norm_act(channels, width)
        self.project = conv_norm_act(width * (len(dilations) + 2), width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, channels, H, W) to (B, width, H, W)."""
        return self.dropout(self.reduce(x_BCHW))

    def reduce(self, x_BCHW: Tensor) -> Tensor:
        """`forward` without the dropout."""
        branches = [branch(x_BCHW) for branch in self.branches]
        pooled = self.pooled(x_BCHW.mean(dim=(2, 3), keepdim=True)).expand_as(branches[0])
        return self.project(torch.cat([*branches, pooled], dim=1))


class DeepLabV3SSUL(Head):
    """A pyramid over stage 4 for the classifiers, and one over each of stages 1 to 3 for distillation only.

    The taps `aspp1` to `aspp3` are the outputs of the latter, `aspp4` is the input of the classifiers. In step 0 no loss
    trains the three, so they distil random projections, as published.

    Args:
        channels: of the backbone's stages.
        width: of every output (256 in the publications).
        output_stride: output stride of the backbone, which determines the dilations (8: 12, 24, 36; 16: 6, 12, 18).
        dropout: probability that an element is dropped in training.

    Example:
        >>> maps = [torch.zeros(2, count, side, side) for count, side in ((8, 16), (16, 8), (32, 4), (64, 4))]
        >>> head = DeepLabV3SSUL([8, 16, 32, 64], 16)
        >>> head([maps[3]]).shape, head.dense[0](maps[0]).shape
        (torch.Size([2, 16, 4, 4]), torch.Size([2, 16, 16, 16]))
    """

    uses = (3,)
    taps = ASPP_TAPS
    output_tap = ASPP_TAPS[-1]

    def __init__(self, channels: list[int], width: int = 256, output_stride: int = 16, dropout: float = 0.1):
        super().__init__()
        dilations = DILATIONS[output_stride]
        self.aspp = ProjectedASPP(channels[3], width, dilations, dropout)
        self.dense = nn.ModuleList(ProjectedASPP(count, width, dilations, dropout) for count in channels[:3])
        self.width = width

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[stage 4 (B, C, H, W)] to (B, width, H, W)."""
        return self.aspp(maps[0])

    def tap(self, name: str, activated: Callable[[int], Tensor], decoded_BCHW: Tensor) -> Tensor:
        """The output of a pyramid, see the class."""
        stage = self.taps.index(name)
        return self.dense[stage](activated(stage)) if stage < 3 else decoded_BCHW

    def undropped(self, maps: list[Tensor]) -> Tensor:
        """`forward` without the dropout."""
        return self.aspp.reduce(maps[0])

    def undropped_tap(self, name: str, activated: Callable[[int], Tensor]) -> Tensor:
        """The output of a pyramid over stages 1 to 3 without its dropout."""
        stage = self.taps.index(name)
        pyramid = self.dense[stage]
        assert isinstance(pyramid, ProjectedASPP)
        return pyramid.reduce(activated(stage))

    @property
    def dropouts(self) -> dict[str, nn.Module]:
        """That of each pyramid."""
        pyramids = (self.aspp, *self.dense)
        return {
            tap: pyramid.get_submodule("dropout") for tap, pyramid in zip(("head", *self.taps[:3]), pyramids, strict=True)
        }

    def freeze_unused(self, taps: Sequence[str]) -> None:
        """Freeze the pyramids for distillation whose tap is not computed."""
        for tap, pyramid in zip(self.taps, self.dense, strict=False):
            if tap not in taps:
                pyramid.requires_grad_(False)

    def initialise(self, kind: Initialisation | None = None) -> None:
        """Initialise the convolutions; by default He-normal, as the references do."""
        initialise_convolutions(self, kind or "he")
