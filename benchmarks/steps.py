"""A whole training step of a method, as the engine makes it, and the bare networks that it needs.

python -m benchmarks.steps mib plop    # ours, bare networks, ratio
"""

import sys
from dataclasses import dataclass, replace
from itertools import repeat
from types import SimpleNamespace
from typing import Any

import torch
from lightning_fabric import Fabric

from benchmarks.timing import in_pairs
from contseg.data.classes import ClassTable
from contseg.data.pipelines.augment import WholeImage
from contseg.engine.allocator import kept_memory
from contseg.engine.job import Reporter
from contseg.engine.loading import Shard
from contseg.engine.options import TrainingOptions
from contseg.engine.update import Updater
from contseg.methods.method import Method
from contseg.methods.registry import METHODS, make_method
from contseg.models.options import NetworkOptions, first_widths
from contseg.models.segmenter import Segmenter
from contseg.ranks import Ranks
from contseg.scenarios.batch import Batch
from contseg.scenarios.policy import LabelPolicy
from contseg.scenarios.step import Step

RESNET50 = NetworkOptions(backbone="resnet50")
SLOW = TrainingOptions(lr=1e-4, lr_later=1e-4)
UPDATES = 1_000_000
CLOSED_FORM = ("gaussian", "pyramid", "cfsseg")
CASES = [*((name, {}) for name, kind in METHODS.items() if "pixels" in kind.learns and name not in CLOSED_FORM)] + [
    (name, {"variant": "released"}) for name in ("plop", "reminder", "sdr", "idec", "lag")
]
UNKNOWN: dict[str, Any] = {"head": "deeplabv3-ssul", "unknown": True, "decision": "sigmoid"}
BINARY: dict[str, Any] = {"head": "deeplabv3-dkd", "decision": "sigmoid"}
NETWORKS: dict[str, dict[str, Any]] = {
    "rcil": {"backbone": {"branches": 2}, "head": "deeplabv3-rcil"},
    "dkd": {**BINARY, "background": "auxiliary"},
    "star": {**BINARY, "background": "constant"},
    "adapter": {**BINARY, "background": "constant"},
    "barm": {"head": "deeplabv3-barm", "background": "residual", "decision": "sigmoid"},
    "mbs": {"backbone": "vit_base", "head": "mask-transformer"},
}
"""What the network of a method has in place of the setting's."""
WITH_STATISTICS = ("ewc", "pi", "rw", "reminder", "star", "adapter")
"""Methods that need what they store after step 0."""


@dataclass(frozen=True)
class Setting:
    """What a training step works on.

    Args:
        network: options of the network; methods with an output "unknown" replace the head by theirs.
        old, new: classes; none are new while the old ones are learned for their statistics.
        crop: side of the images and labels, in pixels.
        images: per batch.
        device: on which both run; default: PyTorch's default device.
        training: options of the engine.
        index: of the step; 0 has no teacher and no old classes.
        growths: how often the classes of the segmenter have grown, of which the new ones are the last.
    """

    network: NetworkOptions = RESNET50
    old: int = 16
    new: int = 5
    crop: int = 512
    images: int = 2
    device: str = ""
    training: TrainingOptions = SLOW
    index: int = 1
    growths: int = 1


DEFAULT = Setting()


class TrainingStep:
    """One method in the middle of a step: `update` is what the engine does for a batch, `bare` only the networks.

    The bare networks are one student forward and backward, and one teacher forward if the method has a teacher. Their
    images are normalised already; nothing is up-sampled, no label is read, no weight is changed. They hold what the method
    holds, and run the pyramids that it distils.
    """

    def __init__(self, method: str | Method, setting: Setting = DEFAULT, **options: object):
        torch.manual_seed(0)
        device = torch.device(setting.device) if setting.device else torch.get_default_device()
        self.setting = setting
        self.method = method if isinstance(method, Method) else make_method(method, **options)
        with torch.device("cpu"):  # generators are there
            self._make(device)

    def _make(self, device: torch.device) -> None:
        setting, method = self.setting, self.method
        if setting.index and method.name in WITH_STATISTICS:
            _store_statistics(method, setting)
        self.network = _network_of(method, setting)
        old = setting.old if setting.index else 0
        self.step = _step_of(method, setting, old)
        student = _grown(self.network, setting, method).to(device)
        teacher = _grown(self.network, setting, method).to(device) if old and method.needs_teacher else None
        if setting.new:
            student.grow(setting.new, method.new_classes_start_from)
        self.batch = make_batch(method, self.step, setting).to(device)
        session = _session(method, setting, device)
        self.updater = Updater(session, self.step, student, teacher, _Batches(self.batch))  # type: ignore[arg-type]
        method.before_step(self.updater.context)
        self.updater.begin_epoch(0, None)
        self._number = 0
        self._normalised = self.updater.inputs(self.batch)

    def update(self) -> None:
        """One update of the weights."""
        self.updater.update(repeat(self.batch), self._number, UPDATES)
        self._number += 1

    def bare(self) -> None:
        """The networks that the update needs."""
        updater = self.updater
        updater.optimiser.zero_grad(set_to_none=True)
        with updater.fabric.autocast():
            if updater.teacher is not None:
                with torch.no_grad():
                    updater.teacher(self._normalised, updater.method.taps)
            output = updater.student(self._normalised, updater.taps)
            read = [output.logits, *(output.features[tap] for tap in updater.taps if tap.startswith("aspp"))]
        torch.stack([features.float().square().mean() for features in read]).sum().backward()


class _Batches:
    """Stands in for the batches of a step: one batch, again and again."""

    updates = UPDATES

    def __init__(self, batch: Batch):
        self._batch = batch

    def own_images(self, epoch: int) -> list[Batch]:
        return [self._batch]


def _session(method: Method, setting: Setting, device: torch.device) -> Any:
    """What an `Updater` reads of a session; there is no run and no dataset."""
    fabric = Fabric(accelerator=device.type, devices=1, precision=setting.training.precision)  # type: ignore[arg-type]
    job = SimpleNamespace(method=method, training=setting.training, evaluation_pipeline=WholeImage())
    return SimpleNamespace(fabric=fabric, job=job, ranks=Ranks(), shard=Shard(), reporter=Reporter())


def _step_of(method: Method, setting: Setting, old: int) -> Step:
    """A step without samples. The labels of a dataset have 8 bits, so that its steps have at most 255 classes; this one may
    have more.
    """
    policy = LabelPolicy("ssul" if method.needs_unknown else "plop")
    table = ClassTable.of([*map(str, range(setting.old + setting.new))])
    step = Step.of(table.subset(table.ids[:2]), min(old, 1), index=setting.index, policy=policy)
    return replace(step, new_classes=table.ids[old:], old_classes=table.ids[:old], table=table)


def _grown(network: NetworkOptions, setting: Setting, method: Method) -> Segmenter:
    """A segmenter of the old classes, which has grown once less often than the student."""
    earlier = setting.growths - 1
    count = setting.old // (earlier + 1)
    segmenter = Segmenter(network, first_widths(network, setting.old - earlier * count))
    for _ in range(earlier):
        segmenter.grow(count, method.new_classes_start_from)
    return segmenter


def _network_of(method: Method, setting: Setting) -> NetworkOptions:
    return setting.network.changed(**NETWORKS.get(method.name, UNKNOWN if method.needs_unknown else {}))


def _store_statistics(method: Method, setting: Setting) -> None:
    """What a method stores after step 0, of one update."""
    first = TrainingStep(method, replace(setting, new=0, index=0, growths=1))
    first.update()
    method.after_step(first.updater.context)


def make_batch(method: Method, step: Step, setting: Setting) -> Batch:
    """Random images with blocks of the new classes and background, as the pixels of a step that shows no others."""
    unknown, count, images = int(method.needs_unknown), setting.old + setting.new, setting.images
    cells = torch.randint(step.old_count + unknown, count + unknown, (images, 1, 8, 8))
    cells = cells.where(torch.rand(images, 1, 8, 8) < 0.3, 0).float()
    labels = torch.nn.functional.interpolate(cells, (setting.crop, setting.crop)).long()[:, 0]
    annotated = torch.zeros(images, count + unknown, dtype=torch.bool)
    annotated[:, step.old_count + unknown :] = True
    pixels = torch.randint(0, 255, (images, 3, setting.crop, setting.crop), dtype=torch.uint8)
    return Batch(pixels, labels, tuple(f"image {number}" for number in range(images)), annotated)


def main() -> None:
    chosen = [case for case in CASES if case[0] in sys.argv[1:]] or CASES
    for name, options in chosen:
        step = TrainingStep(name, **options)
        with kept_memory():  # as in a run
            found = in_pairs(step.update, step.bare)
        print(name, *options.values(), f"{found.ours:.3f} s, {found.yardstick:.3f} s, {found.ratio:.3f}", flush=True)


if __name__ == "__main__":
    main()
