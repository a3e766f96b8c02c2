"""The backbone that the options name."""

from torch.nn.modules.batchnorm import _NormBase

from contseg.errors import ContsegError, did_you_mean
from contseg.models.backbones.backbone import Backbone
from contseg.models.backbones.resnet import ResNet
from contseg.models.backbones.swin import Swin
from contseg.models.backbones.timm_backbone import TimmBackbone
from contseg.models.backbones.vit import PlainViT
from contseg.models.names import ARCHITECTURES, BACKBONES, DEPTHS, VARIANTS
from contseg.models.options import NetworkOptions


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
