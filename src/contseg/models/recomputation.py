"""Backbones that keep the inputs of their blocks for backward, and compute what is inside them again."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint

from contseg.models.backbones.backbone import Backbone

Context = Callable[[], AbstractContextManager[Any]]


def blocks_of(backbone: Backbone) -> list[nn.Module]:
    """The smallest modules of the stages that a forward pass calls: residual blocks, or whole stages of other libraries.

    Example:
        >>> from contseg.models.backbones.resnet import ResNet
        >>> len(blocks_of(ResNet("resnet50", width=8)))  # the stem's convolution and norm, and 3 + 4 + 6 + 3 blocks
        18
    """
    return [block for stage in backbone.stages() for module in stage for block in _called(module)]


def _called(module: nn.Module) -> list[nn.Module]:
    if type(module) in (nn.ModuleList, nn.Sequential) or type(module).forward is nn.Module.forward:
        return [block for child in module.children() for block in _called(child)]
    return [module]


@contextmanager
def recomputed(backbone: Backbone, context: Context = nullcontext) -> Iterator[None]:
    """Inside, a forward pass of a backbone only keeps the inputs of its blocks; backward computes each block once more.

    Gradients, random draws and statistics are those of a pass that keeps everything, on a CPU bit for bit. Memory falls to
    the inputs and the insides of one block; time rises by a forward pass of the backbone.

    Args:
        context: entered when a block is computed again, such as `DrawsOfUpdate` of the forward pass.

    Example:
        >>> import torch
        >>> from contseg.models.backbones.resnet import ResNet
        >>> network = ResNet("resnet18", width=8)
        >>> with recomputed(network):
        ...     maps = network(torch.ones(2, 3, 64, 64))
        >>> maps[3].sum().backward()
        >>> network.bn1.num_batches_tracked.item(), network.conv1.weight.grad.shape
        (1, torch.Size([8, 3, 7, 7]))
    """
    blocks = blocks_of(backbone)
    for block in blocks:
        block.forward = partial(_run, block, block.forward, context)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _run(block: nn.Module, forward: Callable[..., Any], context: Context, *args: Any, **kwargs: Any) -> Any:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _again(block, context)

    return checkpoint(partial(forward, **kwargs), *args, use_reentrant=False, context_fn=contexts)


@contextmanager
def _again(block: nn.Module, context: Context) -> Iterator[None]:
    """The second pass of a block: its norms count the statistics of the batch into copies, as they are counted already."""
    norms = [norm for norm in block.modules() if isinstance(norm, _NormBase) and norm.training]
    counted = [dict(norm._buffers) for norm in norms]
    for norm, buffers in zip(norms, counted, strict=True):
        norm._buffers.update({name: None if value is None else value.clone() for name, value in buffers.items()})
    try:
        with context():
            yield
    finally:
        for norm, buffers in zip(norms, counted, strict=True):
            norm._buffers.update(buffers)
