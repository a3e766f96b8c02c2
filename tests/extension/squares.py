"""Folders of coloured squares, and tiny models of them."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from contseg.data.classes import ClassTable
from contseg.interop.pretrained import save_pretrained
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 30), "blue": (40, 40, 230), "yellow": (230, 220, 30)}


def write_squares(
    root: Path, labelled: Collection[str], *, count: int = 8, shown: Sequence[str] = (), seed: int = 0
) -> Path:
    """Images of a square of every colour in `shown` (default: those that are labelled); returns the folder."""
    shown, rng = shown or tuple(labelled), np.random.default_rng(seed)
    names = ["background", *labelled]
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for number in range(count):
        image = rng.integers(100, 140, (48, 48, 3)).astype(np.uint8)
        mask = np.zeros((48, 48), dtype=np.uint8)
        for place, colour in zip(rng.permutation(4), shown, strict=False):
            top, left = 24 * (place // 2) + rng.integers(0, 6), 24 * (place % 2) + rng.integers(0, 6)
            image[top : top + 16, left : left + 16] = COLOURS[colour]
            if colour in labelled:
                mask[top : top + 16, left : left + 16] = names.index(colour)
        Image.fromarray(image).save(root / "images" / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    return root


def write_model(folder: Path, names: Sequence[str] = ("background", "red"), seed: int = 0) -> Path:
    """An untrained network whose predictions are varied and confident."""
    torch.manual_seed(seed)
    network = NetworkOptions.model_validate(
        {"backbone": {"name": "resnet18", "width": 8, "output_stride": 8}, "head": {"name": "fcn", "width": 16}}
    )
    segmenter = Segmenter(network, [len(names)]).eval()
    images = torch.randint(255, (2, 3, 48, 48), dtype=torch.uint8)
    with torch.no_grad():
        last = segmenter.classifier.steps[0]
        last.weight *= 100 / segmenter(segmenter.normalise(images)).logits.std()
        last.bias -= segmenter(segmenter.normalise(images)).logits.mean(dim=(0, 2, 3))
    return save_pretrained(folder, segmenter, ClassTable.of(names))
