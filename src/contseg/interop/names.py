"""Load foreign tensors into a segmenter; a tensor that does not fit is an error."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor

from contseg.errors import ContsegError
from contseg.models.segmenter import Segmenter

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
OURS = re.compile(r"(\.num_batches_tracked|tables\.seen)$")
"""Names of tensors that only our networks have and that hold no weights."""


RESNET_NAMES = ("layer1.0.conv1.weight", "layer4.0.conv1.weight")
"""Tensor names of torchvision that identify a ResNet in a file."""


def renamed(name: str, rules: Sequence[Rule]) -> str:
    """Rename a foreign tensor by applying every rule (pattern, replacement) in turn.

    Example:
        >>> rules = [("^body.mod3.block1", "backbone.layer2.0"), (".convs", "")]
        >>> renamed("body.mod3.block1.convs.bn2.weight", rules)
        'backbone.layer2.0.bn2.weight'
    """
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def prefixes_of(names: Collection[str], parts: Sequence[str]) -> list[str]:
    """The prefixes of a network in a file, such as `""` or `"model.backbone."`; several for several networks.

    Args:
        names: names of all tensors in the file.
        parts: some tensor names of the network, which must all exist with the prefix.

    Example:
        >>> names = ["model.backbone.conv1.weight", "model.backbone.layer1.0.conv1.weight", "model.head.weight"]
        >>> prefixes_of(names, ["conv1.weight", "layer1.0.conv1.weight"])
        ['model.backbone.']
    """
    there, (first, *others) = set(names), parts
    found = [name.removesuffix(first) for name in names if name == first or name.endswith(f".{first}")]
    return sorted(prefix for prefix in found if all(prefix + other in there for other in others))


def below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, which is removed."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without the prefix that all names share, such as `model.`.

    Example:
        >>> import torch
        >>> list(unwrapped({"net.model.body.weight": torch.zeros(1), "net.model.cls.weight": torch.zeros(1)}))
        ['body.weight', 'cls.weight']
    """
    while len({name.partition(".")[0] for name in tensors}) == 1 and all("." in name for name in tensors):
        tensors = {name.partition(".")[2]: value for name, value in tensors.items()}
    return tensors


def load_strictly(segmenter: Segmenter, found: dict[str, Tensor]) -> Segmenter:
    """Load tensors into a segmenter; returns it in eval mode.

    Raises:
        ContsegError: a tensor is missing or unexpected, or has another shape.
    """
    own = segmenter.state_dict()
    found = found | {name: own[name] for name in own if OURS.search(name) and name not in found}
    wrong = [f"{name} missing" for name in own if name not in found]
    wrong += [f"{name} unexpected" for name in found if name not in own]
    wrong += [
        f"{name} is {tuple(found[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in found and found[name].shape != own[name].shape
    ]
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise ContsegError(f"weights: do not fit ({'; '.join(wrong[:3])}{more})")
    segmenter.load_state_dict(found)
    return segmenter.eval()
