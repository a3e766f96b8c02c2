"""A backbone: its options, and the network that they make."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from contseg.models.backbones.backbone import Backbone
from contseg.models.backbones.options import BackboneOptions
from contseg.models.layers import conv_norm_act


class SmallCNN(Backbone):
    """Five convolutions, each after a pooling.

    Args:
        width: channels of the first map.
    """

    def __init__(self, width: int):
        super().__init__()
        self.channels = [width, 2 * width, 4 * width, 8 * width]
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.stem = conv_norm_act(3, width, 3)
        pairs = zip([width, *self.channels], self.channels, strict=False)
        self.convolutions = nn.ModuleList(conv_norm_act(before, after, 3) for before, after in pairs)

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) to maps at the strides 4, 8, 16, 32."""
        maps = [self.stem(self.pool(images_BCHW))]
        for convolution in self.convolutions:
            maps.append(convolution(self.pool(maps[-1])))
        return maps[1:]


class SmallCNNOptions(BackboneOptions):
    """Keys under `network.backbone`.

    Attributes:
        width: channels of the first map.
    """

    name: Literal["small-cnn"] = "small-cnn"
    width: int = Field(16, ge=1)

    def build(self) -> SmallCNN:
        return SmallCNN(self.width)
