"""Rows without a module of their own: losses and samples against plain operations, presence tables and plans."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from benchmarks.presence import ade_plan, presence_again, presence_table
from benchmarks.timing import Work
from contseg.data.files import read_image, read_mask
from contseg.data.pipelines.augment import training_pipeline
from contseg.data.recoding import look_up
from contseg.losses.cross_entropy import unbiased_cross_entropy
from contseg.losses.distillation import unbiased_distillation
from contseg.losses.pod import local_pod_loss
from contseg.models.layers import resize

OLD, SEEN, CROP = 101, 151, 512
SAMPLES = 20


def sample() -> tuple[Work, Work]:
    """JPEG + mask, scaled, cropped, flipped, label-mapped; and decoding the JPEG with Pillow."""
    rng, folder = np.random.default_rng(0), tempfile.TemporaryDirectory()
    image_path, mask_path = Path(folder.name) / "a.jpg", Path(folder.name) / "a.png"
    smooth = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
    smooth.resize((500, 375), Image.Resampling.BICUBIC).save(image_path, quality=92)
    blocks = Image.fromarray(rng.integers(0, 21, (12, 16), dtype=np.uint8))
    blocks.resize((500, 375), Image.Resampling.NEAREST).save(mask_path)
    pipeline, lookup = training_pipeline("mib", CROP, 0.5), np.arange(65536).astype(np.uint8)

    def ours() -> None:
        assert folder.name
        for _ in range(SAMPLES):
            _, layers = pipeline(read_image(image_path), {"mask": read_mask(mask_path)}, rng)
            look_up(lookup, layers["mask"])

    def decode() -> None:
        for _ in range(SAMPLES):
            with Image.open(image_path) as image:
                image.convert("RGB").load()

    return ours, decode


def mib_losses(classes: int = SEEN, crop: int = CROP) -> tuple[Work, Work]:
    """Unbiased cross-entropy and distillation, up-sampling from 1/16 and backward included; and plain cross-entropy."""
    old, side = classes * 2 // 3, crop // 16
    student = torch.randn(2, classes, side, side, requires_grad=True)
    teacher = torch.randn(2, old, side, side)
    labels = torch.randint(0, classes, (2, crop, crop))

    def ours() -> None:
        logits = resize(student, (crop, crop))
        loss = unbiased_cross_entropy(logits, labels, old).mean()
        loss = loss + unbiased_distillation(logits, resize(teacher, (crop, crop))).mean()
        torch.autograd.grad(loss, student)

    def plain() -> None:
        torch.autograd.grad(functional.cross_entropy(resize(student, (crop, crop)), labels), student)

    return ours, plain


def local_pod() -> tuple[Work, Work]:
    """Local POD over the five maps of a ResNet-101 at crop 512, batch 2, with backward; and mean squared error."""
    shapes = [(256, 128), (512, 64), (1024, 32), (2048, 32), (256, 32)]
    old = [torch.randn(2, channels, side, side) for channels, side in shapes]
    new = [torch.randn(2, channels, side, side, requires_grad=True) for channels, side in shapes]

    def ours() -> None:
        torch.autograd.grad(local_pod_loss(old, new, [0.01] * 5, 1.0), new)

    def plain() -> None:
        torch.autograd.grad(sum(functional.mse_loss(b, a) for a, b in zip(old, new, strict=True)), new)

    return ours, plain


ROWS = {"sample": sample, "mib-losses": mib_losses, "pod": local_pod, "presence": presence_table}
SECONDS = {"presence-again-seconds": presence_again, "plan-seconds": ade_plan}
