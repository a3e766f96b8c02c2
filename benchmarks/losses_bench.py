"""What losses cost: each one against a plain yardstick in the same run, and its peak of extra memory.

`ROWS` has a function for each row that returns what is measured and its yardstick; `MEMORY` has a function that returns MiB.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.profiler import profile

from contseg.losses.pod import local_pod_loss
from contseg.methods.method import Method, StepContext
from contseg.methods.registry import make_method
from contseg.models.options import NetworkOptions, first_widths
from contseg.models.output import SegmenterOutput
from contseg.models.segmenter import Segmenter
from contseg.scenarios.batch import Batch
from contseg.scenarios.policy import LabelPolicy
from contseg.scenarios.step import Step

Call = Callable[[], object]

OLD, SEEN, SIDE, SMALL = 101, 151, 512, 32
POD_SHAPES = [(256, 128), (512, 64), (1024, 32), (2048, 32), (256, 32)]
"""Channels and side of the five maps of a ResNet-101 at crop 512."""
VOC_OLD, VOC_NEW, VOC_CROP = 16, 5, 321


@dataclass
class Terms:
    """The terms of a method on outputs without a network, forward and backward.

    Args:
        leaves: tensors of the student's output, which get the gradients.
    """

    method: Method
    context: StepContext
    batch: Batch
    student: SegmenterOutput
    teacher: SegmenterOutput | None

    def __call__(self) -> None:
        """Pseudo-labels, terms, and their gradients with respect to the output of the student."""
        batch = self.method.relabel(self.batch, self.teacher, self.context)
        student = SegmenterOutput(self.student.logits, self.student.features)  # nothing is kept from the call before
        teacher = self.teacher and SegmenterOutput(self.teacher.logits, self.teacher.features)
        terms = self.method.losses(batch, student, teacher, self.context)
        leaves = [student.logits, *student.features.values()]
        torch.autograd.grad(torch.stack(list(terms.values())).sum(), leaves, allow_unused=True)


def step_of(method: Method, old: int, new: int) -> Step:
    """A later step of a method."""
    return Step.of([*map(str, range(old + new))], old, policy=LabelPolicy("ssul" if method.needs_unknown else "plop"))


def labels_of(step: Step, images: int, side: int) -> tuple[Tensor, Tensor]:
    """Labels of the new classes and background, and what is annotated."""
    first, count = step.old_outputs, step.old_outputs + step.new_count
    labels = torch.randint(first, count, (images, side, side)).where(torch.rand(images, side, side) < 0.3, 0)
    annotated = torch.zeros(images, count, dtype=torch.bool)
    annotated[:, first:] = True
    return labels, annotated


def full_size(name: str, images: int = 2) -> Terms:
    """The terms of MiB or PLOP at 151 classes, 101 of them old, and 512 x 512; PLOP without its features."""
    torch.manual_seed(0)
    method = make_method(name)
    step = step_of(method, OLD, SEEN - OLD)
    student = SegmenterOutput(torch.randn(images, SEEN, SMALL, SMALL, requires_grad=True))
    teacher = SegmenterOutput(torch.randn(images, OLD, SMALL, SMALL))
    labels, annotated = labels_of(step, images, SIDE)
    batch = Batch(torch.zeros(images, 3, 1, 1), labels, ("",) * images, annotated)
    context = StepContext(None, None, step, 1, [])  # type: ignore[arg-type]  # these terms read no segmenter
    if name == "plop":
        method.state["thresholds"] = torch.full((OLD,), 0.5)
        method = _OnlyPixels(method)  # type: ignore[assignment]
    return Terms(method, context, batch, student, teacher)


class _OnlyPixels:
    """PLOP's pseudo-labels, factor and cross-entropy, without local POD."""

    def __init__(self, method: Method):
        self.relabel = method.relabel
        self._supervise = method.supervise

    def losses(
        self, batch: Batch, student: SegmenterOutput, teacher: SegmenterOutput | None, context: StepContext
    ) -> dict[str, Tensor]:
        """The supervised term."""
        return {"cross_entropy": self._supervise(student, batch, context)}


def upsampled_cross_entropy(images: int = 2) -> Call:
    """The yardstick of losses at full size: whole up-sampling + PyTorch's cross-entropy, with backward."""
    logits = torch.randn(images, SEEN, SMALL, SMALL, requires_grad=True)
    labels = torch.randint(0, SEEN, (images, SIDE, SIDE))

    def plain() -> None:
        large = functional.interpolate(logits, (SIDE, SIDE), mode="bilinear", align_corners=False)
        torch.autograd.grad(functional.cross_entropy(large, labels), logits)

    return plain


def mib_losses() -> tuple[Call, Call]:
    """MiB's terms with up-sampling and backward, against up-sampling + cross-entropy."""
    return full_size("mib"), upsampled_cross_entropy()


def plop_losses() -> tuple[Call, Call]:
    """PLOP's pseudo-labels, factor and cross-entropy with up-sampling and backward, against the same."""
    return full_size("plop"), upsampled_cross_entropy()


def pod_maps() -> tuple[list[Tensor], list[Tensor]]:
    """The five maps of teacher and student, batch 2."""
    return (
        [torch.randn(2, channels, side, side) for channels, side in POD_SHAPES],
        [torch.randn(2, channels, side, side, requires_grad=True) for channels, side in POD_SHAPES],
    )


def local_pod() -> tuple[Call, Call]:
    """Local POD over the five maps with backward, against mean squared error over the same maps."""
    old, new = pod_maps()

    def ours() -> None:
        torch.autograd.grad(local_pod_loss(old, new, [0.01] * len(new), 1.0), new)

    def plain() -> None:
        torch.autograd.grad(sum(functional.mse_loss(b, a) for a, b in zip(old, new, strict=True)), new)

    return ours, plain


def terms_and_bare_step(name: str) -> tuple[Call, Call]:
    """The terms of a method on the output of a ResNet-101 at crop 321, batch 2, 21 classes; and the bare networks.

    The bare networks are one forward and backward of the student with every feature that the method reads, and one
    forward of the teacher.
    """
    torch.manual_seed(0)
    method = make_method(name)
    network = NetworkOptions(backbone="resnet101")
    if method.needs_unknown:
        network = NetworkOptions(backbone="resnet101", head="deeplabv3-ssul", unknown=True, decision="sigmoid")
    teacher = Segmenter(network, first_widths(network, VOC_OLD))
    student = Segmenter(network, first_widths(network, VOC_OLD)).train()
    student.grow(VOC_NEW, method.new_classes_start_from)
    step = step_of(method, VOC_OLD, VOC_NEW)
    method.prepare(student, step)
    student.freeze_unused(method.taps)
    labels, annotated = labels_of(step, 2, VOC_CROP)
    batch = Batch(torch.randint(0, 255, (2, 3, VOC_CROP, VOC_CROP), dtype=torch.uint8), labels, ("a", "b"), annotated)
    context = StepContext.for_loop(student, teacher, step, method, [batch])
    method.before_step(context)
    assert context.predict_teacher is not None
    old = context.predict_teacher(batch)
    with torch.no_grad():
        output = student(student.normalise(batch.images), method.taps)
    leaves = SegmenterOutput(
        output.logits.requires_grad_(), {tap: one.requires_grad_() for tap, one in output.features.items()}
    )

    def bare() -> None:
        student.zero_grad()
        assert context.predict_teacher is not None
        context.predict_teacher(batch)
        new = student(student.normalise(batch.images), method.taps)
        read = [new.logits, *(features for tap, features in new.features.items() if tap.startswith("aspp"))]
        torch.stack([features.square().mean() for features in read]).sum().backward()

    return Terms(method, context, batch, leaves, old), bare


def peak(call: Call) -> float:
    """The most memory that tensors made by a call take at a time, in MiB."""
    call()  # what is computed once and kept
    with profile(profile_memory=True) as record:
        call()
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most / 2**20


def pod_memory() -> float:
    """Peak of local POD without the gradients of the maps, which any loss of these maps returns."""
    old, new = pod_maps()
    gradients = sum(one.numel() * one.element_size() for one in new) / 2**20
    return peak(lambda: torch.autograd.grad(local_pod_loss(old, new, [0.01] * len(new), 1.0), new)) - gradients


ROWS: dict[str, Callable[[], tuple[Call, Call]]] = {
    "mib-losses": mib_losses,
    "plop-losses": plop_losses,
    "pod": local_pod,
    "idec-losses": lambda: terms_and_bare_step("idec"),
    "sdr-losses": lambda: terms_and_bare_step("sdr"),
}
MEMORY: dict[str, Callable[[], float]] = {
    "mib-memory": lambda: peak(full_size("mib")),
    "plop-memory": lambda: peak(full_size("plop")),
    "pod-memory": pod_memory,
}
