"""UperNet: pyramid pooling on top of a feature pyramid."""

from torch import Tensor, nn

from contseg.models.heads.head import Head
from contseg.models.layers import PPM, FeaturePyramid, conv_norm_act


class UperNet(Head):
    """Pyramid pooling of the last stage, top-down fusion with the earlier ones, a 3x3, and channel dropout
    (Xiao et al., ECCV 2018).

    Args:
        channels: of the backbone's stages.
        width: of the output (512 in the publications).
        fpn_width: of the pyramid (512 in the publications).
        dropout: probability that a channel is dropped in training.

    Example:
        >>> import torch
        >>> maps = [torch.zeros(2, count, side, side) for count, side in ((8, 16), (16, 8), (32, 8), (64, 8))]
        >>> UperNet([8, 16, 32, 64], 16, 12)(maps).shape
        torch.Size([2, 16, 16, 16])
    """

    uses = (0, 1, 2, 3)

    def __init__(self, channels: list[int], width: int = 512, fpn_width: int = 512, dropout: float = 0.1):
        super().__init__()
        self.context = PPM(channels[3], fpn_width)
        self.pyramid = FeaturePyramid(channels[:3], fpn_width, fpn_width)
        self.decoder = conv_norm_act(4 * fpn_width, width, 3)
        self.dropout = nn.Dropout2d(dropout)
        self.width = width

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Stages 1 to 4 to (B, width, H, W) at the size of stage 1."""
        return self.drop(self.undropped(maps))

    def undropped(self, maps: list[Tensor]) -> Tensor:
        """`forward` without the dropout."""
        return self.decoder(self.pyramid(maps[:3], self.context(maps[3])))

    @property
    def dropouts(self) -> dict[str, nn.Module]:
        """That of the output."""
        return {"head": self.dropout}
