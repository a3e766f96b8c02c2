"""A network of another library as the backbone of a segmenter."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import pad

from contseg.errors import ContsegError
from contseg.models.adopted.slot import Slot, StepByStep, WaitingSlot, take_out, taken
from contseg.models.backbones.backbone import Backbone
from contseg.models.classifier import GrowingClassifier
from contseg.models.layers import resize
from contseg.models.normalization import BatchNorm


class AdoptedBackbone(Backbone):
    """A network of another library: its own forward pass computes the logits, with a classifier of ours as last layer.

    Args:
        network: images (B, 3, H, W) to logits. It is changed: its auxiliary outputs are removed, its batch norms share their
            statistics over ranks, and `fill` replaces its last convolutions.
        classifier: dotted names of its last convolutions.
        size: height and width to which images are resized, if the network has a fixed size.
        multiple: images are padded to sides that are multiples of it.

    Raises:
        ContsegError: see `take_out`; or the first convolution does not read three channels.
    """

    def __init__(
        self, network: nn.Module, classifier: Sequence[str], size: tuple[int, int] | None = None, multiple: int = 1
    ):
        super().__init__()
        self.last = take_out(network, classifier)
        first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
        if first.in_channels != 3:
            raise ContsegError(
                f"{type(network).__name__}: reads {first.in_channels} channels; only RGB images are supported"
            )
        self.network, self.classifier, self.size, self.multiple = network, tuple(classifier), size, multiple
        self.channels = [sum(one.in_channels for one in self.last)]
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = BatchNorm  # the same layer, with statistics over all ranks

    def fill(self, classifier: GrowingClassifier) -> None:
        """Call `classifier` in place of the last convolutions."""
        *first, last = self.classifier
        waiting = [WaitingSlot() for _ in first]
        for name, slot in zip((*first, last), (*waiting, Slot(classifier, waiting)), strict=True):
            parent, _, child = name.rpartition(".")
            setattr(self.network.get_submodule(parent), child, slot)
        del self.last

    @property
    def slot(self) -> Slot:
        """The slot that calls the classifier."""
        slot = self.network.get_submodule(self.classifier[-1])
        assert isinstance(slot, Slot)
        return slot

    def run(self, images_BCHW: Tensor, widths: list[int]) -> tuple[Tensor, Tensor]:
        """The input of the classifier, and the logits as the network resizes them.

        Images are resized to the size of the network, if it has a fixed one, or padded at the right and at the bottom.

        Args:
            widths: outputs of each step.
        """
        height, width = images_BCHW.shape[2:]
        size, multiple = self.size, self.multiple
        below, beyond = -height % multiple, -width % multiple
        if size is not None and size != (height, width):
            images_BCHW = resize(images_BCHW, size, antialias=True)
        elif size is None and (below or beyond):
            images_BCHW = pad(images_BCHW, (0, beyond, 0, below))
        with StepByStep(self.slot, widths) if len(widths) > 1 else nullcontext():
            logits = _logits_of(self.network(images_BCHW))
        decoded = taken(self.slot)
        if size is None and (below or beyond):
            share = height / (height + below), width / (width + beyond)
            decoded, logits = _cropped(decoded, share), _cropped(logits, share)
        return decoded, logits


def _cropped(map_BCHW: Tensor, share: tuple[float, float]) -> Tensor:
    """The upper left part of a map."""
    height, width = (math.ceil(side * part) for side, part in zip(map_BCHW.shape[2:], share, strict=True))
    return map_BCHW[:, :, :height, :width]


def _logits_of(output: Any) -> Tensor:
    """The logits in the output of a network: a tensor, the first of several, or the value of `logits` or `out`."""
    if isinstance(output, Mapping):
        output = next((output[key] for key in ("logits", "out") if key in output), None)
    elif isinstance(output, Sequence) and len(output):
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim != 4:
        raise ContsegError(
            f"the output of the network is a {type(output).__name__}; expected logits (B, K, H, W), alone, as the first of"
            " several, or under 'logits' or 'out'"
        )
    return output
