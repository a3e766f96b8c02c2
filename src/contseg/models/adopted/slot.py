"""The last convolution of a foreign network, and the slots that take its place."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from contseg.errors import ContsegError


class SummedConv2d(nn.Conv2d):
    """Convolutions of two feature maps whose results are added, as one convolution of the concatenated maps (LR-ASPP).

    The results are added in the order of the original network, so that logits stay bit-equal.

    Args:
        channels: channels of the two maps.
        outputs: channels of the result.
    """

    def __init__(self, channels: Sequence[int], outputs: int):
        super().__init__(sum(channels), outputs, 1)
        self.channels = tuple(channels)
        self.first_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, input: Tensor) -> Tensor:
        """(B, sum of channels, H, W) to (B, outputs, H, W)."""
        one, other = input.split(self.channels, dim=1)
        first, last = self.weight.split(self.channels, dim=1)
        return nn.functional.conv2d(one, first, self.first_bias) + nn.functional.conv2d(other, last, self.bias)


class Slot(nn.Module):
    """Takes the place of a last convolution, and calls a classifier that belongs to the segmenter.

    The classifier is not registered here, so that its parameters have one name. A deep copy of the segmenter refers to the
    copy of its classifier.
    """

    def __init__(self, classifier: nn.Module, waiting: Sequence["WaitingSlot"] = ()):
        super().__init__()
        self._classifier, self._waiting = [classifier], list(waiting)  # modules in lists are not registered
        self.kept: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        """The logits of all steps."""
        self.kept = torch.cat([*map(taken, self._waiting), input], dim=1) if self._waiting else input
        return self._classifier[0](self.kept)


class WaitingSlot(Slot):
    """Takes the place of the first of two convolutions whose results are added: keeps the input, and returns zero."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())

    def forward(self, input: Tensor) -> Tensor:
        """Zero, as the `Slot` of the other convolution computes both."""
        self.kept = input
        return input.new_zeros(())


class StepByStep(TorchFunctionMode):
    """Resizes the outputs of each step on their own, after a slot was called.

    PyTorch's bilinear resizing on CPU rounds differently where the number of channels differs, so that old logits would not
    stay bit-equal after growth.

    Args:
        slot: the slot.
        widths: outputs of each step.
    """

    def __init__(self, slot: Slot, widths: list[int]):
        super().__init__()
        self.slot, self.widths = slot, widths

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not nn.functional.interpolate or self.slot.kept is None or args[0].shape[1] != sum(self.widths):
            return func(*args, **kwargs)
        logits, *others = args
        return torch.cat([func(step, *others, **kwargs) for step in logits.split(self.widths, dim=1)], dim=1)


def taken(slot: Slot) -> Tensor:
    """The input of the last call of a slot, which is then forgotten.

    Raises:
        ContsegError: the slot was not called.
    """
    found, slot.kept = slot.kept, None
    if found is None:
        raise ContsegError("classifier: the network did not call the convolution that was named; name its last one")
    return found


def take_out(module: nn.Module, names: Sequence[str]) -> list[nn.Conv2d]:
    """The last convolutions of a module.

    Raises:
        ContsegError: a name does not exist or is no convolution, with the names of those that may be meant; or several
            convolutions that cannot be added.
    """
    found = []
    for name in names:
        try:
            one = module.get_submodule(name)
        except AttributeError:
            one = None
        if not isinstance(one, nn.Conv2d) or one.groups != 1:
            kind = f"has no '{name}'" if one is None else f"'{name}' is a {type(one).__name__}, not a plain Conv2d"
            raise ContsegError(f"classifier: {type(module).__name__} {kind}; name the last convolution {_hint(module)}")
        found.append(one)
    if len(found) > 1 and (len(found) != 2 or any(one.kernel_size != (1, 1) for one in found)):
        raise ContsegError(f"classifier: {', '.join(names)}: only two 1x1 convolutions can be added; name one convolution")
    if len({one.out_channels for one in found}) > 1:
        raise ContsegError(f"classifier: {', '.join(names)} have different numbers of outputs; name one convolution")
    return found


def _hint(module: nn.Module) -> str:
    last = [name for name, one in module.named_modules() if isinstance(one, nn.Conv2d) and one.groups == 1]
    if not last:
        return "of the module that computes its logits; this one has no convolution"
    return f"with classifier=NAME; its convolutions end with {', '.join(last[-3:])}"


def convolution_like(last: Sequence[nn.Conv2d]) -> Callable[[int], nn.Conv2d]:
    """A function from a number of outputs to a convolution with the input, kernel and padding of the last one."""
    if len(last) > 1:
        return partial(SummedConv2d, [one.in_channels for one in last])
    (one,) = last
    keys = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    return partial(nn.Conv2d, one.in_channels, **{key: getattr(one, key) for key in keys})


@torch.no_grad()
def as_first_step(last: Sequence[nn.Conv2d], outputs: int) -> nn.Conv2d:
    """The last convolution with its weights and a bias, which is zero if the original has none.

    Args:
        outputs: of the result. With one more than the original has, the first output is always zero: the softmax of 0 and z
            is the sigmoid of z.
    """
    made = convolution_like(last)(outputs).to(last[0].weight)
    biases = [made.first_bias, made.bias] if isinstance(made, SummedConv2d) else [made.bias]
    added = outputs - last[0].out_channels
    for own, weights in zip(
        (made.weight, *biases), (torch.cat([one.weight for one in last], dim=1), *(one.bias for one in last)), strict=True
    ):
        assert own is not None
        own.zero_()
        if weights is not None:
            own[added:] = weights
    return made
