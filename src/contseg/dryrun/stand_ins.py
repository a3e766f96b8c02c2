"""Synthetic data and small sizes, so that a recipe can be checked quickly on any machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel
from torch import Tensor, nn
from torch.nn import functional

from contseg.data.datasets.cityscapes import CITIES
from contseg.data.fake import LAYOUTS, write_fake
from contseg.data.open import DATASETS
from contseg.models.backbones.options import ResNetOptions
from contseg.models.normalization import BatchNorm
from contseg.models.segmenter import Segmenter
from contseg.recipes.build import make_scenario, open_recipe_dataset
from contseg.recipes.recipe import Recipe

Options = TypeVar("Options", bound=BaseModel)

SHORTEST = 32
"""Minimum side in pixels, as backbones have strides of up to 32."""

BATCH = 2
MANY_CLASSES = 30
DIGITS = {"train": 80, "test": 12}


def with_changes(options: Options, /, **changes: Any) -> Options:
    """A copy of the options with changed values."""
    return options.model_copy(update=changes)


def quartered(recipe: Recipe) -> Recipe:
    """The recipe with crops, frames, windows and strides of a quarter of the side, at least 32 pixels.

    Example:
        >>> from contseg.recipes.read import read_recipe
        >>> quartered(read_recipe("voc/plop_15-1_overlapped")).data.crop
        128
    """
    data, evaluation = recipe.data, recipe.evaluation
    return with_changes(
        recipe,
        data=with_changes(data, **{key: _quarter(getattr(data, key)) for key in ("crop", "test_crop", "resize")}),
        evaluation=with_changes(
            evaluation, **{key: _quarter(getattr(evaluation, key)) for key in ("crop", "stride", "fit", "resize")}
        ),
    )


def _quarter(sides: Any) -> Any:
    if isinstance(sides, list):
        return [_quarter(side) for side in sides]
    return None if sides is None else min(sides, max(SHORTEST, sides // 4))


def write_images(dataset: str, folder: Path) -> Path:
    """Write synthetic images of a dataset in its layout, once per folder.

    Every class occurs in several images of every domain, alone or with earlier classes, so that every step of every split
    and setting has images.

    Raises:
        ContsegError: the dataset has no synthetic images.
    """
    place = folder / "images" / dataset
    if not DATASETS[dataset].needs_folder:
        place.mkdir(parents=True, exist_ok=True)
    elif not place.is_dir() and dataset not in LAYOUTS:
        partial = place.with_name(f"{dataset}.partial")
        partial.mkdir(parents=True)
        DATASETS[dataset].write_stand_in(partial)
        partial.rename(place)
    elif not place.is_dir():
        classes = len(LAYOUTS[dataset].values)
        each = len(CITIES) - 3 if dataset == "cityscapes" else 2 if classes > MANY_CLASSES else 4
        place.parent.mkdir(parents=True, exist_ok=True)
        write_fake(dataset, place, train=max(classes * each, 8), test=max(classes, 8))
    return place


def rehearsed(recipe: Recipe, shared: Path, own: Path) -> Recipe:
    """The recipe with synthetic data, batches of 2 (Swin-Large: 1), one process, and random weights (ResNet: He-normal).

    Shares of images are raised so that each step keeps some of the few images. Epochs are unchanged, see
    `contseg.dryrun.rehearsal`.

    Args:
        shared: folder of the images, which recipes of the same dataset share.
        own: folder of the files for this recipe only.

    Raises:
        ContsegError: see `write_images`; or the dataset does not match the scenario.
    """
    options = DIGITS | recipe.data.options if recipe.data.dataset == "digits" else recipe.data.options
    training, network, cuda = recipe.training, recipe.network, torch.cuda.is_available()
    if isinstance(network.backbone, ResNetOptions):
        # like ImageNet weights, these keep the activations of an untrained deep network bounded
        network = network.changed(backbone={"initialisation": "he"})
    recipe = with_changes(
        recipe,
        data=with_changes(recipe.data, path=str(write_images(recipe.data.dataset, shared)), options=options),
        network=network,
        scenario=with_changes(
            recipe.scenario,
            ratio=max(recipe.scenario.ratio, 0.6),
            validation=0.5 if recipe.scenario.validation else 0.0,
        ),
        training=with_changes(
            training,
            # the weights of Swin-Large are in memory five times (gradients, two moments, teacher)
            batch=1 if recipe.network.backbone.name == "swin_large" and recipe.scenario.memory is None else BATCH,
            accumulate=min(training.accumulate, 2),
            precision=training.precision if cuda else "32",
            compile=False,
            accelerator=training.accelerator if cuda else "cpu",
            devices=1,
            nodes=1,
            workers=0,
            threads=None,
            loggers=[],
        ),
        evaluation=recipe.evaluation if cuda else with_changes(recipe.evaluation, precision="32"),
        backbone_weights=None,
        start_from=None,
    )
    changes: dict[str, Any] = {}
    if recipe.scenario.saliency is not None:
        changes["saliency"] = str(_write_saliency(recipe, own / "saliency"))
    if recipe.scenario.lists is not None:
        changes["lists"] = str(_write_lists(recipe, own / "lists"))
    return with_changes(recipe, scenario=with_changes(recipe.scenario, **changes))


def _write_saliency(recipe: Recipe, folder: Path) -> Path:
    """Write a saliency map for every training image, in which the left half is salient."""
    dataset = open_recipe_dataset(recipe)
    for name in dataset.names("train"):
        mask = dataset.read_mask(name)
        salient = np.zeros(mask.shape, dtype=np.uint8)
        salient[:, : mask.shape[1] // 2] = 255
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(salient).save(path)
    return folder


def _write_lists(recipe: Recipe, folder: Path) -> Path:
    """Write an image list for every step, with the images that the setting selects."""
    folder.mkdir(parents=True, exist_ok=True)
    without = with_changes(recipe.scenario, lists=None)
    for step in make_scenario(with_changes(recipe, scenario=without)):
        names = "\n".join([*step.train.names, *step.val.names])
        (folder / f"train-{step.index}.txt").write_text(names + "\n", encoding="utf-8")
    return folder


class NormOfOne(BatchNorm):
    """Batch norm that accepts a single value per channel, as in pooled branches with a single image. As such a batch has no
    variance, it then uses the statistics of evaluation."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.training and x_BCHW.numel() == x_BCHW.shape[1]:
            return functional.batch_norm(x_BCHW, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x_BCHW)


def ready_norms(segmenter: Segmenter, single: bool) -> None:
    """Prepare the norms of an untrained segmenter for two iterations; its tensors do not change.

    Running statistics become those of the last batch. With the usual momentum they would hardly have moved, and the
    activations of a deep network in evaluation mode (the teacher) would grow from block to block until they overflow.

    Args:
        single: whether a batch is a single image, see `NormOfOne`.

    Example:
        >>> from contseg.models.options import NetworkOptions
        >>> psp = Segmenter(NetworkOptions(backbone="resnet18", head={"name": "pspnet", "width": 8}), [3])
        >>> ready_norms(psp, single=True)
        >>> psp(torch.zeros(1, 3, 64, 64)).logits.shape
        torch.Size([1, 3, 4, 4])
    """
    for module in segmenter.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        if single and type(module) is BatchNorm:
            module.__class__ = NormOfOne


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """Use a folder as the cache inside the block, so that synthetic data does not get into the user's cache."""
    before = os.environ.get("CONTSEG_CACHE")
    os.environ["CONTSEG_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CONTSEG_CACHE"]
        else:
            os.environ["CONTSEG_CACHE"] = before
