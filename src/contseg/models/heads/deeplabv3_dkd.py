"""The DeepLabV3 head of DKD, STAR and Adapter: torchvision's pyramid, with a 3x3 convolution after it."""

from torch import Tensor

from contseg.models.heads.deeplabv3_ssul import DILATIONS, ProjectedASPP
from contseg.models.heads.head import Head
from contseg.models.layers import conv_norm_act


class DeepLabV3DKD(Head):
    """Atrous pyramid pooling with a norm per branch, reduced by a 1x1, dropout, and a 3x3 with norm and ReLU.

    The result is not negative.

    Args:
        channels: of the backbone's stages.
        width: of the output (256 in the publications).
        output_stride: output stride of the backbone, which determines the dilations (8: 12, 24, 36; 16: 6, 12, 18).
        dropout: probability that an element is dropped in training.

    Example:
        >>> import torch
        >>> DeepLabV3DKD([8, 16, 32, 64], 16)([torch.zeros(2, 64, 6, 6)]).shape
        torch.Size([2, 16, 6, 6])
    """

    uses = (3,)

    def __init__(self, channels: list[int], width: int = 256, output_stride: int = 16, dropout: float = 0.1):
        super().__init__()
        self.aspp = ProjectedASPP(channels[3], width, DILATIONS[output_stride], dropout)
        self.last = conv_norm_act(width, width, 3)
        self.width = width

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[stage 4 (B, C, H, W)] to (B, width, H, W)."""
        return self.last(self.aspp(maps[0]))
