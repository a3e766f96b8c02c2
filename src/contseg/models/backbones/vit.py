"""Plain vision transformers of timm (DINOv2, DINOv3; extra `timm`) with a simple feature pyramid."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from contseg.models.backbones.timm_vit import TimmViT
from contseg.models.layers import padding_to

TOKEN = 16


class PlainViT(TimmViT):
    """A ViT with four maps made from its last one (ViTDet: Li et al., ECCV 2022).

    Images may have any size: they are padded with zeros at the bottom and right to a multiple of 16, and the maps are
    cropped. One token covers 16 x 16 pixels; for patches of 14 pixels (DINOv2), the image is first resized by 14/16.
    Position embeddings are interpolated.

    The pyramid, which starts untrained, keeps the channels: stride 4 by two 2x2 deconvolutions (a norm and GELU between),
    stride 8 by one, stride 16 is the map itself, stride 32 its 2x2 maxima.

    Args: as of `TimmViT`.

    Returns (forward):
        four maps (B, C, ceil(H / s), ceil(W / s)), s = 4, 8, 16, 32.

    Raises:
        ContsegError: timm is not installed.

    Example:
        >>> import torch
        >>> tiny = PlainViT("dinov2_small", options={"embed_dim": 16, "depth": 1, "num_heads": 2})
        >>> [tuple(stage.shape[1:]) for stage in tiny(torch.zeros(1, 3, 65, 81))]
        [(16, 17, 21), (16, 9, 11), (16, 5, 6), (16, 3, 3)]
    """

    def __init__(self, name: str, *given: Any, **options: Any):
        super().__init__(name, *given, **options)
        width = self.width
        self.pyramid = nn.ModuleList(
            [
                nn.Sequential(_double(width), ChannelNorm(width), nn.GELU(), _double(width)),
                _double(width),
                nn.Identity(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        )

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        """Four maps, see the class."""
        height, width = images_BCHW.shape[2:]
        images = functional.pad(images_BCHW, (0, padding_to(TOKEN, width), 0, padding_to(TOKEN, height)))
        if self.patch != TOKEN:
            size = [side // TOKEN * self.patch for side in images.shape[2:]]
            images = functional.interpolate(images, size, mode="bilinear", align_corners=False)
        last = len(self.model.blocks) - 1
        (tokens,) = self.model.forward_intermediates(
            images, indices=[last], norm=True, output_fmt="NCHW", intermediates_only=True
        )
        maps = [step(tokens) for step in self.pyramid]
        strides = (4, 8, 16, 32)
        return [x[:, :, : (height + s - 1) // s, : (width + s - 1) // s] for x, s in zip(maps, strides, strict=True)]

    def output_layers(self) -> list[nn.Module]:
        """The layers of the pyramid for each map."""
        return list(self.pyramid)


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of every place of (B, C, H, W)."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        return super().forward(x_BCHW.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _double(channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(channels, channels, 2, stride=2)
