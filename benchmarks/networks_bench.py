"""Rows of networks: inference with IDRNet against the head that it extends, growth of EoMT, merging of RCIL."""

from functools import partial

import torch

from benchmarks.timing import Work, seconds
from contseg.models.branches import TwoBranches
from contseg.models.heads.idrnet.options import IDRNetOptions
from contseg.models.make import make_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

CLASSES, CROP = 150, 512


def reference(head: str, idrnet: IDRNetOptions | None = None) -> Segmenter:
    """ResNet-50 at output stride 8 with the widths of the publications, in eval mode."""
    options = NetworkOptions(
        backbone="resnet50",
        stem="deep",
        output_stride=8,
        contracted=True,
        slope=0.0,
        head=head,
        head_width=512,
        idrnet=idrnet,
    )
    return Segmenter(options, [CLASSES]).eval()


def idrnet_inference(head: str) -> tuple[Work, Work]:
    """One image of 512 x 512 through a head under IDRNet, and through the same head alone."""
    image = torch.randn(1, 3, CROP, CROP)
    plain, over = reference(head), reference(head, IDRNetOptions())

    def run(network: Segmenter) -> None:
        with torch.no_grad():
            network(image)

    return partial(run, over), partial(run, plain)


ROWS = {f"idrnet-{head}": partial(idrnet_inference, head) for head in ("fcn", "pspnet", "deeplabv3", "upernet")}


def eomt_growth() -> float:
    """Seconds to add a class to EoMT-S, from the start of MiB."""
    options = NetworkOptions(backbone={"name": "dinov2_reg_small", "patch": 16, "size": CROP}, head="eomt")
    network = make_segmenter(options, [CLASSES])
    return seconds(partial(network.grow, 1, "background"))


def rcil_merge() -> float:
    """Seconds to merge the two branches of RCIL's ResNet-101 and head."""
    options = NetworkOptions(backbone={"name": "resnet101", "branches": 2}, head="deeplabv3-rcil")
    branches = [part for part in Segmenter(options, [16]).modules() if isinstance(part, TwoBranches)]

    def merge() -> None:
        for part in branches:
            part.merge()

    return seconds(merge)


SECONDS = {"growth-seconds": eomt_growth, "merge-seconds": rcil_merge}
