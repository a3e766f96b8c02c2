"""A head: its options, and the network that they make."""

from typing import Literal

from torch import Tensor, nn

from contseg.models.heads.head import Head
from contseg.models.heads.options import HeadInput, HeadOptions
from contseg.models.layers import conv_norm_act, resize


class SumOfStages(Head):
    """The last two stages, projected to one width and summed at the resolution of the third.

    Args:
        channels: of the backbone's four stages.
        width: channels of the result.
    """

    uses = (2, 3)

    def __init__(self, channels: list[int], width: int):
        super().__init__()
        self.width = width
        self.projections = nn.ModuleList(conv_norm_act(channels[stage], width, 1) for stage in self.uses)

    def forward(self, maps: list[Tensor]) -> Tensor:
        fine, coarse = (project(one) for project, one in zip(self.projections, maps, strict=True))
        return fine + resize(coarse, fine.shape[2:])


class SumOfStagesOptions(HeadOptions):
    """Keys under `network.head`."""

    name: Literal["sum-of-stages"] = "sum-of-stages"

    def make(self, below: HeadInput) -> SumOfStages:
        return SumOfStages(below.channels, self.width)
