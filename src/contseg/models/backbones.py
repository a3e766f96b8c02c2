"""The backbone that the options name, and what of it learns."""

from typing import Union

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from contseg.errors import ContsegError, did_you_mean
from contseg.models.names import ARCHITECTURES, BACKBONES, DEPTHS, VARIANTS
from contseg.models.options import NetworkOptions
from contseg.models.resnet import ResNet
from contseg.models.swin import Swin
from contseg.models.timm_backbone import TimmBackbone
from contseg.models.vit import PlainViT

Backbone = Union[ResNet, Swin, TimmBackbone, PlainViT]  # noqa: UP007 (mypy reads it as a type)


def make_backbone(options: NetworkOptions) -> Backbone:
    """An untrained backbone: four maps at the strides 4, 8, 16, 32 (a ResNet: down to its output stride).

    Raises:
        ContsegError: an unknown name, an option that this backbone lacks, or timm is needed and not installed.

    Example:
        >>> from contseg.models.options import NetworkOptions
        >>> make_backbone(NetworkOptions(backbone="swin_tiny", backbone_options={"embed_dim": 24})).channels
        [24, 48, 96, 192]
    """
    name, given = options.backbone, dict(options.backbone_options)
    if name not in BACKBONES:
        raise ContsegError(f"network.backbone: unknown backbone '{name}'; {did_you_mean(name, BACKBONES)}")
    if name in DEPTHS:
        if given or options.drop_path:
            wrong = "backbone_options" if given else "drop_path"
            raise ContsegError(f"network.{wrong}: {name} has none; set width, stem, slope, contracted or output_stride")
        return ResNet(
            name,
            options.output_stride,
            options.slope,
            options.width,
            options.contracted,
            deep_stem=options.stem == "deep",
            momentum=options.norm_momentum,
            initialisation=options.initialisation,
        )
    try:
        if name in VARIANTS:
            return Swin(**VARIANTS[name] | given, drop_path=options.drop_path)
        kind = TimmBackbone if name in ARCHITECTURES else PlainViT
        backbone = kind(name, options.drop_path, given)
    except (TypeError, ValueError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ContsegError(f"network.backbone_options: {name} cannot be made of them ({reason})") from None
    for module in backbone.modules():
        if isinstance(module, _NormBase):
            module.momentum = options.norm_momentum
    return backbone


def is_norm(module: nn.Module) -> bool:
    """Whether a layer normalises, of whichever kind."""
    return isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm)) or type(module).__name__.startswith("RmsNorm")


def hold(backbone: Backbone, freeze: str, used: set[int]) -> None:
    """Make a part of a backbone stop learning; its norms then keep their statistics and nothing in it is dropped.

    Call it again after `train()` or `requires_grad_()`, which undo it. The same arguments always hold the same part.

    Args:
        freeze: `none`; `norm`, all normalisation layers; `stage1` ... `stage4`, the stem and so many first stages; `all`,
            everything (the pyramid after a ViT, which has no published weights, goes on learning).
        used: stages (0 to 3) whose maps a loss always sees. Layers on which only the other maps depend would never get a
            gradient, so they are held too.
    """
    held: list[nn.Module] = []
    stages = _stages(backbone)
    if freeze == "norm":
        held = [module for module in backbone.modules() if is_norm(module)]
    elif freeze == "all":
        held = [module for stage in stages for module in stage]
        held += backbone.ways_out() if isinstance(backbone, Swin) else []
    elif freeze.startswith("stage"):
        held = [module for stage in stages[: int(freeze.removeprefix("stage"))] for module in stage]
    if not isinstance(backbone, ResNet):
        ways = backbone.ways_out()
        held += [way for stage, way in enumerate(ways) if stage not in used]
    for module in held:
        module.requires_grad_(False)
        module.eval()
    if isinstance(backbone, PlainViT) and (freeze == "all" or freeze.startswith("stage")):
        for parameter in backbone.model.parameters(recurse=False):  # position embeddings and the tokens before the patches
            parameter.requires_grad_(False)


def _stages(backbone: Backbone) -> list[list[nn.Module]]:
    """The modules of each stage; the stem belongs to the first."""
    if not isinstance(backbone, ResNet):
        return backbone.stages()
    stem = [backbone.conv1, backbone.bn1] if backbone.stem is None else [backbone.stem]
    layers = [[backbone.get_submodule(f"layer{number}")] for number in range(1, 5)]
    return [[*stem, *layers[0]], *layers[1:]]
