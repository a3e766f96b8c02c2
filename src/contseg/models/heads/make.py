"""The head that the options name."""

from contseg.models.heads.deeplabv3 import DeepLabV3
from contseg.models.heads.deeplabv3_mib import DeepLabV3MiB
from contseg.models.heads.deeplabv3_ssul import DeepLabV3SSUL
from contseg.models.heads.fcn import FCN
from contseg.models.heads.head import Head
from contseg.models.heads.idrnet.network import IDRNet
from contseg.models.heads.pspnet import PSPNet
from contseg.models.heads.upernet import UperNet
from contseg.models.options import NetworkOptions


def make_head(options: NetworkOptions, channels: list[int], widths: list[int]) -> Head:
    """The head that the options name, over a backbone with these channels."""
    if options.idrnet is not None:
        return IDRNet(
            channels,
            widths,
            options.idrnet,
            options.head,
            options.head_width,
            options.fpn_width,
            options.atrous_rates,
            options.dropout,
            options.unknown,
        )
    if options.head == "fcn":
        return FCN(channels, options.head_width, options.dropout)
    if options.head == "pspnet":
        return PSPNet(channels, options.head_width, options.dropout)
    if options.head == "upernet":
        return UperNet(channels, options.head_width, options.fpn_width, options.dropout)
    if options.head == "deeplabv3":
        return DeepLabV3(channels, options.head_width, options.atrous_rates, options.dropout)
    if options.head == "deeplabv3-ssul":
        return DeepLabV3SSUL(channels, options.head_width, options.output_stride, options.dropout)
    slope = options.slope if options.head_slope is None else options.head_slope
    return DeepLabV3MiB(channels, options.head_width, options.output_stride, slope, options.pooling_size)
