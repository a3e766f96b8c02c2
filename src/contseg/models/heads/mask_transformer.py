"""The head of Segmenter and MBS: one linear layer before the class tokens."""

from torch import Tensor, nn

from contseg.models.heads.head import Head
from contseg.models.names import Initialisation
from contseg.models.transformer import initialise_transformer


class MaskTransformer(Head):
    """A linear layer on every position; the blocks over patches and class tokens are those of the classifier,
    `contseg.models.class_tokens.TokenClassifier`.

    Args:
        channels: of the backbone's stages.
        width: of the output and of a token (768 in the publication).

    Example:
        >>> import torch
        >>> MaskTransformer([8, 16, 32, 64], 16)([torch.zeros(2, 64, 6, 6)]).shape
        torch.Size([2, 16, 6, 6])
    """

    uses = (3,)

    def __init__(self, channels: list[int], width: int = 768):
        super().__init__()
        self.projection = nn.Linear(channels[3], width)
        self.width = width

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[stage 4 (B, C, H, W)] to (B, width, H, W)."""
        return self.projection(maps[0].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def initialise(self, kind: Initialisation | None = None) -> None:
        """As released: truncated normal weights; there is no convolution to initialise in another way."""
        initialise_transformer(self)
