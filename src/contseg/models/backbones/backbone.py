"""Base class of backbones."""

from collections.abc import Collection

from torch import Tensor, nn

from contseg.models.freezing import freeze_modules, is_norm
from contseg.models.names import Freeze


class Backbone(nn.Module):
    """Images to four maps. A subclass defines `forward` and `channels`, and overrides what differs from the defaults.

    Attributes:
        channels: channels of the four maps.
        output_stride: pixels of the image per pixel of the last map.

    Returns (forward):
        four maps, (B, channels[i], H_i, W_i), of images (B, 3, H, W) of any size.

    Example:
        >>> import torch
        >>> class Averages(Backbone):
        ...     channels = [3, 3, 3, 3]
        ...     def forward(self, images_BCHW):
        ...         return [nn.functional.avg_pool2d(images_BCHW, stride) for stride in (4, 8, 16, 32)]
        >>> [tuple(stage.shape[2:]) for stage in Averages()(torch.zeros(1, 3, 64, 64))]
        [(16, 16), (8, 8), (4, 4), (2, 2)]
    """

    channels: list[int]
    output_stride: int = 32

    def covered(self, size: tuple[int, int]) -> tuple[int, int]:
        """The size in pixels that the maps of an image (H, W) cover together. By default that of the image."""
        return size

    def activate(self, map_BCHW: Tensor) -> Tensor:
        """Activate a map for the heads; taps are maps without this activation. By default the map itself."""
        return map_BCHW

    def initialise(self) -> None:
        """Initialise the weights for training without published ones. By default the constructor's weights are kept."""

    def stages(self) -> list[list[nn.Module]]:
        """The modules of the four stages, for `freeze`; the stem is part of the first. By default all are in the first."""
        return [[*self.children()], [], [], []]

    def output_layers(self) -> list[nn.Module]:
        """For each map, the layers that only this map depends on. By default none: the next map depends on all of them."""
        return []

    def parts(self, freeze: Freeze) -> list[nn.Module]:
        """The modules that `freeze` selects."""
        if freeze == "norm":
            return [module for module in self.modules() if is_norm(module)]
        count = {"none": 0, "stage1": 1, "stage2": 2, "stage3": 3, "stage4": 4, "all": 4}[freeze]
        return [module for stage in self.stages()[:count] for module in stage]

    def freeze(self, freeze: Freeze, used: Collection[int]) -> None:
        """Freeze a part, see `freeze_modules`. Equal arguments always freeze the same part.

        Args:
            freeze: `none`; `norm`: all norms; `stage1` ... `stage4`: the stem and the stages up to this one; `all`:
                everything (except the pyramid after a ViT, which has no published weights).
            used: stages (0 to 3) whose maps are always used by a loss. Layers that only other maps depend on would never
                get a gradient, so they are frozen too.
        """
        unused = [layer for stage, layer in enumerate(self.output_layers()) if stage not in used]
        freeze_modules(self.parts(freeze) + unused)

    def layers_above(self, name: str) -> int | None:
        """How many layers follow the one of a parameter, for `training.layer_decay`; None: the backbone has no such order.

        Args:
            name: of the parameter, in this module.
        """
        return None
