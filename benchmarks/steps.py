"""What a training step of each method costs beside the networks that it needs."""

import sys

import torch

from benchmarks.timing import ratio
from contseg.methods.method import Method, StepContext
from contseg.methods.registry import METHODS, make_method
from contseg.models.options import NetworkOptions, first_widths
from contseg.models.segmenter import Segmenter, SegmenterOutput
from contseg.scenarios.batch import Batch
from contseg.scenarios.policy import LabelPolicy
from contseg.scenarios.step import Step

OLD, NEW, CROP, IMAGES = 16, 5, 256, 4
CASES = [(name, {}) for name in METHODS] + [
    (name, {"variant": "released"}) for name in ("plop", "reminder", "sdr", "idec", "lag")
]


def make_batch(method: Method, side: int) -> Batch:
    """Labels of the new classes and background, of `side` x `side` pixels."""
    unknown = int(method.needs_unknown)
    labels = torch.randint(OLD + unknown, OLD + NEW + unknown, (IMAGES, side, side))
    labels = labels.where(torch.rand(IMAGES, side, side) < 0.3, 0)
    annotated = torch.zeros(IMAGES, OLD + NEW + unknown, dtype=torch.bool)
    annotated[:, OLD + unknown :] = True
    images = torch.randint(0, 255, (IMAGES, 3, CROP, CROP), dtype=torch.uint8)
    return Batch(images, labels, tuple("abcd"), annotated)


def training_step(name: str, full_size: bool = False, **options: object) -> tuple[float, float, float]:
    """A whole training step of a method against the bare networks: student forward + backward, teacher forward.

    ResNet-50, crop 256, batch 4, 21 classes of which 16 old. The yardstick runs the pyramids that the method distils
    too, and holds what the method holds.

    Args:
        full_size: labels of the size of the crop; otherwise of the features, so that losses at full resolution, which are
            measured by themselves, stay out.
    """
    torch.manual_seed(0)
    method = make_method(name, **options)
    network = NetworkOptions(backbone="resnet50")
    if method.needs_unknown:
        network = NetworkOptions(backbone="resnet50", head="deeplabv3-ssul", unknown=True, decision="sigmoid")
    teacher = Segmenter(network, first_widths(network, OLD))
    student = Segmenter(network, first_widths(network, OLD)).train()
    student.grow(NEW, method.new_classes_start_from)
    policy = LabelPolicy("ssul" if method.needs_unknown else "plop")
    step = Step.of([*map(str, range(OLD + NEW))], OLD, policy=policy)
    method.prepare(student, step)
    taps = method.taps if method.needs_teacher else method.first_taps
    student.freeze_unused(taps)
    batch = make_batch(method, CROP if full_size else CROP // network.backbone.stride)

    context = StepContext.for_loop(student, teacher, step, method, [batch])
    method.before_step(context)

    def predict() -> tuple[SegmenterOutput | None, SegmenterOutput]:
        old = context.predict_teacher(batch) if context.predict_teacher else None
        return old, student(student.normalise(batch.images), taps)

    def ours() -> None:
        student.zero_grad()
        old, new = predict()
        terms = method.losses(method.relabel(batch, old, context), new, old, context)
        torch.stack(list(terms.values())).sum().backward()
        method.after_backward(context)
        method.after_update(context)

    def bare() -> None:
        student.zero_grad()
        output = predict()[1]
        read = [output.logits, *(features for tap, features in output.features.items() if tap.startswith("aspp"))]
        torch.stack([features.square().mean() for features in read]).sum().backward()

    return ratio(ours, bare, repeats=3)


def main() -> None:
    chosen = [case for case in CASES if case[0] in sys.argv[1:]] or CASES
    for name, options in chosen:
        print(name, *options.values(), "{:.3f} s, {:.3f} s, {:.3f}".format(*training_step(name, **options)), flush=True)


if __name__ == "__main__":
    main()
