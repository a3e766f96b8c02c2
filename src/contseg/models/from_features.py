"""Where a forward pass may start in place of the images: features of parts that a step does not change."""

from collections.abc import Mapping

from torch import Tensor


class FromFeatures:
    """Features from which `Segmenter.forward` starts, by point.

    Points are `stage1` to `stage4`, the maps of the backbone before activation; `head` and the head's own taps, before
    their last dropout; and `auxiliary`, the convolution of the auxiliary head. `start_points` finds those that are needed.

    Args:
        features: by point.
        size: (H, W) of the images, for networks that pad them (`Backbone.covered`); None: nothing was padded.

    Not a dataclass: Fabric would convert the tensors in it to the precision of the images.

    Example:
        >>> import torch
        >>> from contseg import NetworkOptions, Segmenter
        >>> segmenter = Segmenter(NetworkOptions(backbone={"name": "resnet18", "width": 8}), [3]).eval()
        >>> images = torch.rand(2, 3, 64, 64)
        >>> start = FromFeatures(segmenter.features_at(images, ("head",)))
        >>> torch.equal(segmenter(None, start=start).logits, segmenter(images).logits)
        True
    """

    __slots__ = ("features", "size")

    def __init__(self, features: Mapping[str, Tensor], size: tuple[int, int] | None = None):
        self.features, self.size = features, size
