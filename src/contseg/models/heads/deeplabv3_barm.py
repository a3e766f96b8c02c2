"""The DeepLabV3 head of BARM: torchvision's pyramid alone, before the branches of its classifier."""

from torch import Tensor, nn

from contseg.models.heads.deeplabv3_ssul import DILATIONS, ProjectedASPP
from contseg.models.heads.head import Head
from contseg.models.initialisation import initialise_convolutions
from contseg.models.names import Initialisation


class DeepLabV3BARM(Head):
    """Atrous pyramid pooling with a norm per branch, reduced by a 1x1, and dropout: `DeepLabV3SSUL` without its pyramids
    for distillation.

    Args:
        channels: of the backbone's stages.
        width: of the output (256 in the publications).
        output_stride: output stride of the backbone, which determines the dilations (8: 12, 24, 36; 16: 6, 12, 18).
        dropout: probability that an element is dropped in training.

    Example:
        >>> import torch
        >>> DeepLabV3BARM([8, 16, 32, 64], 16)([torch.zeros(2, 64, 6, 6)]).shape
        torch.Size([2, 16, 6, 6])
    """

    uses = (3,)

    def __init__(self, channels: list[int], width: int = 256, output_stride: int = 16, dropout: float = 0.1):
        super().__init__()
        self.aspp = ProjectedASPP(channels[3], width, DILATIONS[output_stride], dropout)
        self.width = width

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[stage 4 (B, C, H, W)] to (B, width, H, W)."""
        return self.aspp(maps[0])

    def undropped(self, maps: list[Tensor]) -> Tensor:
        """`forward` without the dropout."""
        return self.aspp.reduce(maps[0])

    @property
    def dropouts(self) -> dict[str, nn.Module]:
        """That of the pyramid."""
        return {"head": self.aspp.dropout}

    def initialise(self, kind: Initialisation | None = None) -> None:
        """Initialise the convolutions; by default He-normal, as the reference does."""
        initialise_convolutions(self, kind or "he")
