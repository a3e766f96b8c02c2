"""PSPNet: pyramid pooling."""

from torch import Tensor, nn

from contseg.models.heads.head import Head
from contseg.models.layers import PPM


class PSPNet(Head):
    """Pyramid pooling over grids of 1, 2, 3 and 6 cells, and channel dropout (Zhao et al., CVPR 2017).

    Args:
        channels: of the backbone's stages.
        width: of the output (512 in the publications).
        dropout: probability that a channel is dropped in training.

    Example:
        >>> import torch
        >>> PSPNet([8, 16, 32, 64], 16)([torch.zeros(2, 64, 6, 6)]).shape
        torch.Size([2, 16, 6, 6])
    """

    uses = (3,)

    def __init__(self, channels: list[int], width: int = 512, dropout: float = 0.1):
        super().__init__()
        self.context = PPM(channels[3], width)
        self.dropout = nn.Dropout2d(dropout)
        self.width = width

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[stage 4 (B, C, H, W)] to (B, width, H, W)."""
        return self.drop(self.undropped(maps))

    def undropped(self, maps: list[Tensor]) -> Tensor:
        """`forward` without the dropout."""
        return self.context(maps[0])

    @property
    def dropouts(self) -> dict[str, nn.Module]:
        """That of the output."""
        return {"head": self.dropout}
