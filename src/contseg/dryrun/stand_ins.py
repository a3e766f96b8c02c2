"""Synthetic data and small sizes for a recipe, so that a check of it runs anywhere in a short time."""

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
from contseg.errors import ContsegError
from contseg.models.backbones.options import ResNetOptions
from contseg.models.normalization import BatchNorm
from contseg.models.segmenter import Segmenter
from contseg.recipes.build import make_scenario, open_recipe_dataset
from contseg.recipes.recipe import Recipe

Options = TypeVar("Options", bound=BaseModel)

SHORTEST = 32
"""Pixels: no side of a quarter is shorter; backbones have strides of up to 32."""

BATCH = 2
MANY_CLASSES = 30
DIGITS = {"train": 80, "test": 12}


def with_changes(options: Options, /, **changes: Any) -> Options:
    """The options with other values."""
    return options.model_copy(update=changes)


def quartered(recipe: Recipe) -> Recipe:
    """The recipe on images of a quarter of the side: crops, frames, windows and strides, whole pixels, none below 32.

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
    """Synthetic images of a dataset, in its layout; written once per folder. Every class occurs in several, in
    every domain, alone or with earlier classes, so that every step of every split and setting has some.

    Raises:
        ContsegError: there are no synthetic images of this dataset.
    """
    place = folder / "images" / dataset
    if dataset == "digits":  # its images are synthetic already
        place.mkdir(parents=True, exist_ok=True)
    elif not place.is_dir():
        if dataset not in LAYOUTS:
            raise ContsegError(
                f"data.dataset: no synthetic images of '{dataset}'; a dry run needs one of {', '.join((*LAYOUTS, 'digits'))}"
            )
        classes = len(LAYOUTS[dataset].values)
        each = len(CITIES) - 3 if dataset == "cityscapes" else 2 if classes > MANY_CLASSES else 4
        place.parent.mkdir(parents=True, exist_ok=True)
        write_fake(dataset, place, train=max(classes * each, 8), test=max(classes, 8))
    return place


def rehearsed(recipe: Recipe, shared: Path, own: Path) -> Recipe:
    """The recipe with synthetic data, batches of 2 (Swin-Large: 1), one process, and no loaded weights: a ResNet starts
    from He-normal ones.

    Shares of images are large enough to leave some of the few. Epochs stay; see `contseg.dryrun.rehearsal`.

    Args:
        shared: where images are written, and found again by the next recipe of the same dataset.
        own: for what is written for this recipe only.

    Raises:
        ContsegError: see `write_images`; or dataset and scenario do not go together.
    """
    options = DIGITS | recipe.data.options if recipe.data.dataset == "digits" else recipe.data.options
    training, network, cuda = recipe.training, recipe.network, torch.cuda.is_available()
    if isinstance(network.backbone, ResNetOptions):
        # weights that keep a deep network's numbers in bounds before it has learned, as those of ImageNet would
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
            # next to five times its weights (gradients, two moments, teacher), Swin-Large leaves little room for images
            batch=1 if recipe.network.backbone.name == "swin_large" and recipe.scenario.memory is None else BATCH,
            accumulate=min(training.accumulate, 2),
            precision=training.precision if cuda else "32",
            compile=False,
            accelerator=training.accelerator if cuda else "cpu",
            devices=1,
            nodes=1,
            workers=0,
            threads=None,
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
    """A map for every training image: the left half is salient."""
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
    """A list for every step, of what the setting would choose."""
    folder.mkdir(parents=True, exist_ok=True)
    without = with_changes(recipe.scenario, lists=None)
    for step in make_scenario(with_changes(recipe, scenario=without)):
        names = "\n".join([*step.train.names, *step.val.names])
        (folder / f"train-{step.index}.txt").write_text(names + "\n", encoding="utf-8")
    return folder


class NormOfOne(BatchNorm):
    """A norm that may see a single value per channel, as pooled branches give it of a single image: there, where a batch has
    no variance, it takes the statistics that evaluation takes."""

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.training and x_BCHW.numel() == x_BCHW.shape[1]:
            return functional.batch_norm(x_BCHW, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(x_BCHW)


def ready_norms(segmenter: Segmenter, single: bool) -> None:
    """Make the norms of an untrained segmenter fit for two iterations; its tensors stay what they are.

    Their statistics become those of the last batch. As running means they would hardly have moved, and a deep network that
    does not really normalise in evaluation (the teacher!) multiplies from block to block until its features overflow.

    Args:
        single: batches hold single images, see `NormOfOne`.

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
    """Use a folder as the cache, so that nothing synthetic is left in the cache of the user."""
    before = os.environ.get("CONTSEG_CACHE")
    os.environ["CONTSEG_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["CONTSEG_CACHE"]
        else:
            os.environ["CONTSEG_CACHE"] = before
