"""What networks cost: IDRNet against the head it stands over, and growing by a class."""

import time

import torch

from benchmarks.timing import ratio
from contseg.models.heads.idrnet.options import IDRNetOptions
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


def idrnet_inference(head: str) -> tuple[float, float, float]:
    """One image of 512 x 512 through a head under IDRNet, against the same head alone."""
    image = torch.randn(1, 3, CROP, CROP)
    plain, over = reference(head), reference(head, IDRNetOptions())
    with torch.no_grad():
        return ratio(lambda: over(image), lambda: plain(image), repeats=3)


def growing() -> tuple[float, float]:
    """Seconds of adding a class to IDRNet over FCN with 150 classes, and of copying the tensors that change."""
    segmenter = reference("fcn", IDRNetOptions())
    changed = [*segmenter.head.tables.state_dict().values()]
    started = time.perf_counter()
    for tensor in changed:
        tensor.clone()
    copying = time.perf_counter() - started
    started = time.perf_counter()
    segmenter.grow(1, "background")
    return time.perf_counter() - started, copying
