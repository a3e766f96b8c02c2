"""`contseg predict`."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from rich.progress import track

from contseg.cli.console import console
from contseg.data.classes import ClassTable, Colour
from contseg.data.files import IMAGE_SUFFIXES, read_image, write_palette_png
from contseg.data.open import DATASETS
from contseg.engine.run import Run
from contseg.errors import ContsegError
from contseg.evaluation.inference import Inference
from contseg.evaluation.predict import predict_image
from contseg.interop.pretrained import is_pretrained, open_segmenter
from contseg.recipes.read import parse_recipe, read_recipe


def run_prediction(source: Path, images: Path, out: Path, changes: dict[str, Any]) -> None:
    """Write `ids/NAME.png` (ids of the dataset), `colours/NAME.png` and `overlays/NAME.png` for each image.

    Args:
        changes: of how the run of this segmenter sees images, keys as in `InferenceOptions`.
    """
    file = find_segmenter(source)
    segmenter, classes = open_segmenter(file)
    inference = inference_of(file, classes, changes)
    segmenter.to("cuda" if torch.cuda.is_available() else "cpu")
    found = find_images(images)
    ids = np.array(classes.ids)
    if ids.max() > 255:
        raise ContsegError(f"{source}: class id {ids.max()} does not fit an 8-bit PNG")
    palette: list[Colour] = [(0, 0, 0)] * 256
    for number, colour in zip(classes.ids, classes.colours, strict=True):
        palette[number] = colour
    stems = Counter(path.with_suffix("") for path in found)
    for path in track(found, "predicting", console=console, transient=True):
        image = read_image(path)
        try:
            prediction = ids[predict_image(segmenter, image, inference)].astype(np.uint8)
        except ContsegError as error:
            raise ContsegError(f"{path}: {error}") from None
        colours = np.array(palette, dtype=np.uint8)[prediction]
        name = path.relative_to(images) if images.is_dir() else Path(path.name)
        # a.jpg beside a.png: both keep their suffix in the name
        name = name.with_suffix(".png") if stems[path.with_suffix("")] == 1 else name.with_name(f"{name.name}.png")
        for kind in ("ids", "colours", "overlays"):
            (out / kind / name).parent.mkdir(parents=True, exist_ok=True)
        write_palette_png(out / "ids" / name, prediction, palette)
        Image.fromarray(colours).save(out / "colours" / name)
        Image.fromarray(overlay(image, colours, prediction > 0)).save(out / "overlays" / name)
    console.print(f"{len(found)} images: {out}", soft_wrap=True)


def inference_of(file: Path, classes: ClassTable, changes: dict[str, Any]) -> Inference:
    """How to ask a segmenter: as the run that it lies in says, changed; one look at the whole image where there is no run.

    Raises:
        ContsegError: a change is of the wrong kind (says which).
    """
    own = file.resolve().parent.parent.parent / "recipe.yaml"  # RUN/steps/NN/segmenter.safetensors
    settings, mirror = {}, ()
    if file.is_file() and own.is_file():
        recipe = read_recipe(own)
        settings = recipe.evaluation.model_dump(mode="json")
        mirror = getattr(DATASETS.get(recipe.data.dataset), "mirror", ())
    content = {"name": "predict", "data": {"dataset": "folder"}, "evaluation": settings | changes}
    return Inference.of(parse_recipe(content, "predict").evaluation, mirror, classes.ids)


def overlay(image: np.ndarray, colours: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """The image with colours at half strength where something was found: (H, W, 3) uint8."""
    mixed = (image.astype(np.uint16) + colours) // 2
    return np.where(shown[..., None], mixed, image).astype(np.uint8)


def find_segmenter(source: Path) -> Path:
    """The segmenter that a path means: itself (a file, or a folder of `save_pretrained`), or the last step of a run."""
    if not source.is_dir() or is_pretrained(source):
        return source
    run = Run(source).require()
    steps = len(run.confusions())
    if not steps:
        raise ContsegError(f"{source}: no step of this run is finished yet")
    return run.segmenter_path(steps - 1)


def find_images(path: Path) -> list[Path]:
    """The images that a path means: itself, or all below a folder.

    Raises:
        ContsegError: there are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ContsegError(f"{path}: no such image or folder")
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise ContsegError(f"{path}: holds no images ({', '.join(IMAGE_SUFFIXES)})")
    return found
