"""The DeepLabV3 head of the MiB family: one norm over all branches, a pooled branch added after."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from contseg.models.averages import window_means
from contseg.models.heads.head import Head
from contseg.models.initialisation import initialise_convolutions
from contseg.models.names import Initialisation
from contseg.models.normalization import BatchNorm, activation

DILATIONS = {8: (12, 24, 32), 16: (6, 12, 18), 32: (3, 6, 9)}


class DeepLabV3MiB(Head):
    """Atrous pyramid pooling as in MiB, PLOP, SDR and cssegmentation.

    A 1x1 and three dilated 3x3 convolutions, concatenated under one norm and reduced by a 1x1; an averaged branch reduced
    by two 1x1; their sum under a norm. Training averages over the whole map; evaluation averages over
    a sliding window of `pooling_size`, so that larger images get averages over areas of the same size as in training.

    Args:
        channels: of the backbone's stages.
        width: of the output (256 in the publications).
        output_stride: output stride of the backbone, which determines the dilations (8: 12, 24, 32; 16: 6, 12, 18).
        slope: of the leaky ReLU; 1 for none.
        pooling_size: side of the evaluation window in feature pixels (32 is a 512 crop at output stride 16).

    Example:
        >>> DeepLabV3MiB([8, 16, 32, 64], 16, output_stride=8)([torch.zeros(2, 64, 6, 6)]).shape
        torch.Size([2, 16, 6, 6])
    """

    uses = (3,)

    def __init__(
        self, channels: list[int], width: int = 256, output_stride: int = 16, slope: float = 0.01, pooling_size: int = 32
    ):
        super().__init__()
        last = channels[3]
        self.branches = nn.ModuleList(
            [nn.Conv2d(last, width, 1, bias=False)]
            + [
                nn.Conv2d(last, width, 3, padding=dilation, dilation=dilation, bias=False)
                for dilation in DILATIONS[output_stride]
            ]
        )
        self.branches_norm = BatchNorm(4 * width)
        self.branches_project = nn.Conv2d(4 * width, width, 1, bias=False)
        self.pooled_conv = nn.Conv2d(last, width, 1, bias=False)
        self.pooled_norm = BatchNorm(width)
        self.pooled_project = nn.Conv2d(width, width, 1, bias=False)
        self.norm = BatchNorm(width)
        self.activation = activation(slope)
        self.slope, self.pooling_size, self.width = slope, pooling_size, width

    def forward(self, maps: list[Tensor]) -> Tensor:
        """[stage 4 (B, C, H, W)] to (B, width, H, W)."""
        features_BCHW = maps[0]
        out = self.branches_project(self.activation(self.pyramid(features_BCHW)))
        pooled = self.activation(self.pooled_norm(self.pooled_conv(self._pool(features_BCHW))))
        return self.activation(self.norm(out + self.pooled_project(pooled)))

    def pyramid(self, x_BCHW: Tensor) -> Tensor:
        """The four convolutions under their norm, (B, 4 width, H, W)."""
        return self.branches_norm(torch.cat([branch(x_BCHW) for branch in self.branches], dim=1))

    def _pool(self, features_BCHW: Tensor) -> Tensor:
        if self.training:
            return features_BCHW.mean(dim=(2, 3), keepdim=True)  # repeated over the map by the sum
        if torch.compiler.is_exporting():
            return window_means(features_BCHW, self.pooling_size)
        height, width = (min(self.pooling_size, side) for side in features_BCHW.shape[2:])
        pooled = functional.avg_pool2d(features_BCHW, (height, width), stride=1)
        before, after = ((width - 1) // 2, (height - 1) // 2), (width // 2, height // 2)
        return functional.pad(pooled, (before[0], after[0], before[1], after[1]), mode="replicate")

    def initialise(self, kind: Initialisation | None = None) -> None:
        """Initialise the convolutions; by default Xavier-normal with the gain of the activation, as the references do."""
        initialise_convolutions(self, kind or "xavier", self.slope)
