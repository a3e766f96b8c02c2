"""Hypercolumn: all stages side by side, for small networks over a frozen backbone."""

from torch import Tensor, nn

from contseg.models.heads.head import Head
from contseg.models.layers import conv_norm_act, pyramid
from contseg.models.normalization import BatchNorm


class Hypercolumn(Head):
    """All stages at the size of the second, normalised and concatenated (Hariharan et al., CVPR 2015).

    Args:
        channels: of the backbone's stages.
        width: channels of a 1x1 convolution with norm and ReLU over them; 0 has none, so that the classifier reads the
            maps themselves.
        dropout: probability that a channel is dropped in training.

    Example:
        >>> import torch
        >>> maps = [torch.zeros(2, count, side, side) for count, side in ((8, 16), (16, 8), (32, 4), (64, 2))]
        >>> Hypercolumn([8, 16, 32, 64], 12)(maps).shape, Hypercolumn([8, 16, 32, 64], 0)(maps).shape
        (torch.Size([2, 12, 8, 8]), torch.Size([2, 120, 8, 8]))
    """

    uses = (0, 1, 2, 3)

    def __init__(self, channels: list[int], width: int = 256, dropout: float = 0.1):
        super().__init__()
        self.norm = BatchNorm(sum(channels))
        self.mix = conv_norm_act(sum(channels), width) if width else nn.Identity()
        self.dropout = nn.Dropout2d(dropout)
        self.width = width or sum(channels)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Stages 1 to 4 to (B, width, H, W) at the size of stage 2."""
        return self.drop(self.undropped(maps))

    def undropped(self, maps: list[Tensor]) -> Tensor:
        """`forward` without the dropout."""
        return self.mix(self.norm(pyramid(maps)))

    @property
    def dropouts(self) -> dict[str, nn.Module]:
        """That of the output."""
        return {"head": self.dropout}
