"""Tiny networks that classify masks, for tests of segments: sure of what they say, although they learned nothing."""

from pathlib import Path

import torch

from contseg.data.classes import ClassTable
from contseg.interop.segmenter_file import save_segmenter
from contseg.models.make import make_segmenter
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.recipes.read import read_recipe
from contseg.recipes.recipe import Recipe

NETWORK = {
    "backbone": {"name": "dinov2_reg_tiny", "patch": 8, "size": [32, 40], "options": {"embed_dim": 16, "num_heads": 2}},
    "head": {"name": "eomt", "queries": 12, "blocks": 2},
}


SMALL = 10.0
"""How much lower the logits of masks are than those of an untrained network."""


def sure_segmenter(classes: int, seed: int = 2, **head: str) -> Segmenter:
    """An untrained EoMT of two blocks whose queries are sure of a class, mostly not of no-object, and of their masks.

    Args:
        head: options of the head that differ.
    """
    torch.manual_seed(seed)
    segmenter = make_segmenter(NetworkOptions(**NETWORK).changed(head=head), [classes]).eval()
    segmenter.head.probabilities = [0.0, 0.0]
    with torch.no_grad():
        for step in segmenter.classifier.steps:
            step.weight.mul_(60)
        last, norm = segmenter.head.mask_head[-1], segmenter.head.upscale[-1].norm
        last.weight.mul_(60)
        norm.weight[-1], norm.bias[-1] = 0.0, 1.0  # a channel of ones, by which masks are made small
        last.weight[-1], last.bias[-1] = 0.0, -SMALL
    return segmenter


def saved(path: Path, table: ClassTable, seed: int = 2, **head: str) -> Path:
    """Write a `sure_segmenter` of these classes; returns its file."""
    save_segmenter(path, sure_segmenter(len(table), seed, **head), table)
    return path


def toy_recipe(data: Path, *overrides: str) -> Recipe:
    """EoMT on the toy dataset in two steps, of three classes and of two: an epoch of two updates each."""
    return read_recipe(
        "digits/finetune_5-1",
        [
            "data.dataset=toy-panoptic", "data.options={}", f"data.path={str(data)!r}", "data.crop=[32, 40]",
            f"network={NETWORK}", "scenario.split=3-2", "training.epochs=1", "training.batch=6",
            "training.optimiser=adamw", "training.lr=1e-3", "training.lr_later=1e-3", "training.accelerator=cpu",
            *overrides,
        ],
    )  # fmt: skip
