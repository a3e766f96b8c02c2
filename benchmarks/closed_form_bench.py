"""What a step of CFSSeg costs, beside the products phi^T phi of its cells, without which there is no closed form."""

from collections.abc import Callable
from dataclasses import replace

import torch

from benchmarks.steps import Setting, make_batch
from benchmarks.timing import Work, in_pairs
from contseg.data.classes import ClassTable
from contseg.methods.gaussian.cfsseg import CFSSeg
from contseg.methods.gaussian.features import maps
from contseg.methods.gaussian.random_features import RandomFeatures
from contseg.methods.gaussian.ridge import RidgeSums
from contseg.methods.method import StepContext
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.scenarios.step import Step

OLD, NEW, IMAGES = 16, 5, 2
"""Classes before the step, new ones, and images of a batch."""
NETWORK = NetworkOptions(backbone="resnet50", head={"name": "deeplabv3-dkd", "width": 256}, decision="sigmoid")


def closed_form(
    batches: int = 4, crop: int = 512, expansion: int = 8192, network: NetworkOptions = NETWORK
) -> tuple[Work, Work]:
    """A whole later step of CFSSeg: sums read and written, network, pseudo-labels, expansion, products and the solution;
    and the full products of the same expanded cells alone, in float64.

    Args:
        batches: of two images.
        crop: side of the images.
        expansion: dimensions of the random expansion.
    """
    torch.manual_seed(0)
    method = CFSSeg(expansion=expansion)
    step = Step.of(ClassTable.of([*map(str, range(OLD + NEW))]), OLD)
    setting = Setting(old=OLD, new=NEW, crop=crop, images=IMAGES)
    images = [make_batch(method, step, setting) for _ in range(batches)]
    student = Segmenter(network, [OLD]).eval().requires_grad_(False)
    student.grow(NEW, method.new_classes_start_from)
    features = RandomFeatures.drawn("head", student.channels_of("head"), expansion)
    before = RidgeSums.empty(features).grown(step.table.names[:OLD]).state_dict()
    context = replace(StepContext.for_loop(student, None, step, method), every_sample=images)
    cells = [features(g_BDHW.movedim(1, -1).flatten(0, 2).double()) for _, g_BDHW in maps(student, images, "head")]
    gram = torch.zeros(expansion, expansion, dtype=torch.float64)

    def learn() -> None:
        method.load_state_dict(before)
        method.before_step(context)
        method.after_step(context)

    def products() -> None:
        for phi_NM in cells:
            gram.addmm_(phi_NM.T, phi_NM)

    return learn, products


ROWS: dict[str, Callable[[], tuple[Work, Work]]] = {"cfsseg-step": closed_form}


def main() -> None:
    found = in_pairs(*closed_form(), pairs=3)
    print(f"cfsseg-step {found.ours:.1f} s, {found.yardstick:.1f} s, {found.ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
