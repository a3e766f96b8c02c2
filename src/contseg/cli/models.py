"""`contseg models`."""

import re

import torch
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from contseg.cli.console import console
from contseg.errors import ContsegError
from contseg.models.backbones.options import BACKBONES
from contseg.models.eomt.segmenter import EoMTSegmenter
from contseg.models.heads.idrnet.options import CONTEXT
from contseg.models.heads.options import HEADS
from contseg.models.make import make_segmenter
from contseg.models.options import NetworkOptions, first_widths
from contseg.models.segmenter import Segmenter

USED_BY = {
    "deeplabv3-mib": "MiB, PLOP, SDR",
    "deeplabv3-ssul": "SSUL, IDEC, LAG",
    "deeplabv3-rcil": "RCIL",
    "eomt": "masks",
    "deeplabv3-dkd": "DKD, STAR",
    "deeplabv3-barm": "BARM",
    "mask-transformer": "MBS",
}
CAPTION = (
    "any backbone fits any head, except eomt, which needs a plain vision transformer (dinov2..., dinov3...); IDRNet is added"
    " to a head, with its context or another"
)
PARTS = ("backbone", "head", "classifier", "auxiliary")


def print_models() -> None:
    """List backbones and heads, and the options of IDRNet for each head."""
    console.print(f"backbones: {', '.join(BACKBONES)}", highlight=False)
    table = Table(caption=CAPTION)
    for title in ("head", "used by", "IDRNet context", "or", "refine"):
        table.add_column(title, no_wrap=title == "head")
    for head in HEADS:
        if head not in CONTEXT:
            table.add_row(head, USED_BY.get(head, ""), "-", "-", "-")
            continue
        others = [kind for kind in ("none", "ppm", "aspp") if kind != CONTEXT[head] and (head, kind) != ("upernet", "none")]
        table.add_row(head, "", CONTEXT[head], ", ".join(others), "none, before, after")
    console.print(table)


def print_model(options: NetworkOptions, classes: int, crop: int) -> None:
    """Print the parameter count and GFLOPs of every part of a network.

    Args:
        classes: number of outputs, without an output "unknown".
        crop: side of the image in pixels.

    Raises:
        ContsegError: the network cannot be built, or the image is too small for it.
    """
    least = 1 + options.unknown
    if classes < least or crop < options.backbone.stride:
        needed = f"must be at least {least} and {options.backbone.stride} pixels"
        raise ContsegError(f"--classes {classes} --crop {crop}: {needed}")
    segmenter = make_segmenter(options, first_widths(options, classes)).eval()
    segmenter.anneal(0, 1, 1)  # as after training
    flops = flops_by_part(segmenter, crop)
    parts = f"{options.backbone.name}, {options.head.name}{', IDRNet' if options.idrnet else ''}"
    table = Table(title=f"{parts}, {classes} classes")
    table.add_column("part")
    table.add_column("parameters, M", justify="right")
    table.add_column(f"GFLOPs at {crop} x {crop}", justify="right")
    total = 0
    for part in PARTS:
        module = getattr(segmenter, part)
        if module is not None:
            count = sum(parameter.numel() for parameter in module.parameters())
            total += count
            table.add_row(part, f"{count / 1e6:.2f}", f"{flops.get(part, 0) / 1e9:.2f}")
    table.add_section()
    table.add_row("all", f"{total / 1e6:.2f}", f"{flops['all'] / 1e9:.2f}")
    table.caption = "one image, in evaluation (without the auxiliary head); a multiply-add counts as two"
    console.print(table)


def flops_by_part(segmenter: Segmenter, crop: int) -> dict[str, int]:
    """Floating point operations of each part for one image, and `all` together.

    The operations of a classifier that IDRNet applies inside its head are counted in both.
    """
    images, backbone, head = torch.zeros(1, 3, crop, crop), segmenter.backbone, segmenter.head
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        segmenter(images)
    kind = type(segmenter).__name__
    counts = {name: sum(operations.values()) for name, operations in counter.get_flop_counts().items()}
    if isinstance(segmenter, EoMTSegmenter):
        return _flops_of_queries({name.removeprefix(f"{kind}."): count for name, count in counts.items()})
    with FlopCounterMode(display=False) as of_head, torch.no_grad():  # `run` is not counted by module
        stages = backbone(images)
        before = of_head.get_total_flops()
        head.run([backbone.activate(stages[stage]) for stage in head.uses])
    counts[f"{kind}.head"] = of_head.get_total_flops() - before
    return {"all": counter.get_total_flops()} | {part: counts.get(f"{kind}.{part}", 0) for part in PARTS}


def _flops_of_queries(counts: dict[str, int]) -> dict[str, int]:
    """The parts of EoMT: blocks of the backbone are called one by one, and all but classes belongs to the head else.

    Args:
        counts: by module that was called.
    """
    trunk = sum(count for name, count in counts.items() if re.fullmatch(r"backbone\.model\.(\w+|blocks\.\d+)", name))
    every, classes = counts["Global"], counts.get("classifier", 0)
    return {"all": every, "backbone": trunk, "head": every - trunk - classes, "classifier": classes, "auxiliary": 0}
