"""The row of masks: matching and criterion of all predictions against a training step of EoMT-S."""

from functools import partial

import torch

from benchmarks.timing import Work
from contseg.methods.finetune import Finetune
from contseg.methods.method import StepContext
from contseg.models.eomt.segmenter import EoMTSegmenter
from contseg.models.options import NetworkOptions
from contseg.models.output import SegmenterOutput
from contseg.scenarios.batch import Batch
from contseg.scenarios.segments import with_targets
from contseg.scenarios.step import Step

CLASSES, CROP, BATCH = 150, 256, 2
SQUARE = 32
"""Side of the squares that labels consist of."""


def mask_criterion() -> tuple[Work, Work]:
    """Forward and backward of the losses of all predictions, and of the network with them."""
    torch.manual_seed(0)
    options = NetworkOptions(backbone={"name": "dinov2_reg_small", "patch": 16, "size": CROP}, head="eomt")
    network = EoMTSegmenter(options, [CLASSES]).train()
    side = CROP // SQUARE
    labels = torch.randint(0, 12, (BATCH, side, side)).repeat_interleave(SQUARE, 1).repeat_interleave(SQUARE, 2)
    images = torch.randint(0, 256, (BATCH, 3, CROP, CROP), dtype=torch.uint8)
    batch = with_targets(Batch(images, labels, ("a", "b"), torch.ones(BATCH, CLASSES, dtype=torch.bool)))
    method, normal = Finetune(), network.normalise(images)
    step = Step.__new__(Step)  # no term reads it
    context = StepContext.for_loop(network, None, step, method)

    def losses(output: SegmenterOutput) -> torch.Tensor:
        terms = [*method.losses(batch, output, None, context).values()]
        return torch.stack([*terms, *(method.supervise(one, batch, context) for one in output.auxiliary)]).sum()

    def whole() -> None:
        network.zero_grad()
        losses(network(normal)).backward()

    with torch.no_grad():
        known = network(normal)

    def criterion() -> None:
        for one in (known, *known.auxiliary):
            assert one.masks is not None
            one.masks = one.masks._replace(
                class_logits=one.masks.class_logits.detach().requires_grad_(),
                mask_logits=one.masks.mask_logits.detach().requires_grad_(),
            )
        losses(known).backward()

    return criterion, whole


ROWS = {"mask-criterion": partial(mask_criterion)}
