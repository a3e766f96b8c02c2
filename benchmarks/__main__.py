"""`make bench`: what things cost, as ratios against a plain yardstick in the same run.

Absolute times depend on the machine and are shown for orientation only; compare the ratios, with
those of the official code (docs/performance.md) or with an older commit's.
"""

import sys
import time

import torch
from rich.console import Console
from rich.table import Table
from torch.nn import functional

from benchmarks.loading_bench import training_sample
from benchmarks.networks import growing, idrnet_inference
from benchmarks.presence import ade_plan, presence_table
from benchmarks.steps import CASES, training_step
from benchmarks.timing import ratio
from contseg.losses.cross_entropy import unbiased_cross_entropy
from contseg.losses.distillation import unbiased_distillation
from contseg.losses.pod import local_pod_loss
from contseg.models.layers import resize

OLD, SEEN, CROP = 101, 151, 512


def mib_losses() -> tuple[float, float, float]:
    """Unbiased cross-entropy and distillation, up-sampling 32 -> 512 and backward included, against plain."""
    student = torch.randn(2, SEEN, 32, 32, requires_grad=True)
    teacher = torch.randn(2, OLD, 32, 32)
    labels = torch.randint(0, SEEN, (2, CROP, CROP))

    def ours() -> None:
        logits = resize(student, (CROP, CROP))
        loss = unbiased_cross_entropy(logits, labels, OLD).mean()
        loss = loss + unbiased_distillation(logits, resize(teacher, (CROP, CROP))).mean()
        torch.autograd.grad(loss, student)

    def plain() -> None:
        torch.autograd.grad(functional.cross_entropy(resize(student, (CROP, CROP)), labels), student)

    return ratio(ours, plain, repeats=2)


def local_pod() -> tuple[float, float, float]:
    """Local POD over the five maps of a ResNet-101 at crop 512, batch 2, with backward, against mean squared error."""
    shapes = [(256, 128), (512, 64), (1024, 32), (2048, 32), (256, 32)]
    old = [torch.randn(2, channels, side, side) for channels, side in shapes]
    new = [torch.randn(2, channels, side, side, requires_grad=True) for channels, side in shapes]

    def ours() -> None:
        torch.autograd.grad(local_pod_loss(old, new, [0.01] * 5, 1.0), new)

    def plain() -> None:
        torch.autograd.grad(sum(functional.mse_loss(b, a) for a, b in zip(old, new, strict=True)), new)

    return ratio(ours, plain, repeats=3)


def main() -> None:
    table = Table(title=f"costs as ratios, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    for title in ("work", "yardstick", "ours, s", "yardstick, s", "ratio", "official"):
        table.add_column(title, justify="left" if title in ("work", "yardstick") else "right")

    def row(work: str, yardstick: str, figures: tuple[float, float, float], official: str) -> None:
        mine, theirs, value = figures
        table.add_row(work, yardstick, f"{mine:.3f}", f"{theirs:.3f}", f"{value:.2f}", official)
        print(".", end="", file=sys.stderr, flush=True)

    mine, theirs, _ = ratio(*training_sample(), 15, time.process_time)
    row("training sample (as a share of decode speed)", "Pillow JPEG decode", (mine, theirs, theirs / mine), "0.02-0.04")
    (mine, theirs, _), again = presence_table()
    row(
        "presence table of 20,000 masks (as a share of decode speed)",
        "Pillow PNG decode, all cores",
        (mine, theirs, theirs / mine),
        "-",
    )
    row("MiB losses", "up-sampling + cross-entropy", mib_losses(), "11.2")
    row("local POD, five maps", "mean squared error", local_pod(), "14.6")
    for name, options in CASES:
        title = " ".join([f"training step of {name}", *map(str, options.values())])
        row(f"{title}, losses at full size aside", "bare networks", training_step(name, **options), "-")
    for name in ("finetune", "mib", "plop"):
        row(f"training step of {name}, losses at full size", "bare networks", training_step(name, full_size=True), "-")
    for head in ("fcn", "pspnet", "deeplabv3", "upernet"):
        row(f"IDRNet over {head}, inference", f"{head} alone", idrnet_inference(head), "-")
    print(file=sys.stderr)
    Console().print(table)
    growth, copying = growing()
    print(f"growing IDRNet over FCN by a class: {1000 * growth:.1f} ms (copying what changes: {1000 * copying:.1f} ms)")
    print(f"the same presence table once more, from the cache: {again:.2f} s")
    print(f"plan of ADE20K 100-5 (11 steps) from presence tables: {ade_plan():.2f} s")


if __name__ == "__main__":
    main()
