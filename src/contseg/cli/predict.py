"""`contseg predict`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from contseg.cli.console import console, progress_bar
from contseg.cli.predict_files import KINDS, find_images, require_inputs_kept, result_names, skipped_text, write_marker
from contseg.data.classes import Colour
from contseg.data.files import read_image, write_palette_png
from contseg.data.pixels import Reading
from contseg.errors import ContsegError, counted
from contseg.evaluation.inference import Inference
from contseg.evaluation.predict import predict_image
from contseg.models.segmenter import Segmenter
from contseg.recipes.models import open_model
from contseg.recipes.recipe import Recipe


def run_prediction(
    source: Path,
    images: Path,
    out: Path,
    changes: dict[str, Any],
    bands: list[int] | None = None,
    values: list[float] | None = None,
) -> None:
    """Write `ids/NAME.png` (ids of the dataset), `colours/NAME.png` and `overlays/NAME.png` for each image.

    Args:
        changes: changes to the inference of the run, keys as in `InferenceOptions`.
        bands, values: `bands` and `range` of `Reading`; default: those of the run.

    Raises:
        ContsegError: a result would overwrite an image, or some images could not be predicted (the others are).
    """
    model = open_model(source, "cuda" if torch.cuda.is_available() else "cpu")
    segmenter, classes, inference = model.segmenter, model.classes, model.inferring(changes)
    reading = reading_of(model.recipe, bands, values)
    for note in model.notes:
        console.print(f"note: {note}", soft_wrap=True, highlight=False, markup=False)
    found, skipped = find_images(images)
    if max(classes.ids) > 255:
        raise ContsegError(f"{source}: class id {max(classes.ids)} does not fit an 8-bit PNG")
    ids = np.array(classes.ids, dtype=np.uint8)
    palette: list[Colour] = [(0, 0, 0)] * 256
    for number, colour in zip(classes.ids, classes.colours, strict=True):
        palette[number] = colour
    names = result_names(found, images)
    require_inputs_kept(found, out, names)
    write_marker(out, names)
    problems: list[ContsegError] = []
    with progress_bar("predicting") as progress:
        for number, (path, name) in enumerate(zip(found, names, strict=True)):
            progress(number, len(found))
            try:
                image = read_image(path, reading)
                prediction = ids[decide(segmenter, image, inference, path)]
            except ContsegError as error:
                problems.append(error)
                continue
            colours = np.array(palette, dtype=np.uint8)[prediction]
            try:
                for kind in KINDS:
                    (out / kind / name).parent.mkdir(parents=True, exist_ok=True)
                write_palette_png(out / "ids" / name, prediction, palette)
                Image.fromarray(colours).save(out / "colours" / name)
                Image.fromarray(overlay(image, colours, prediction > 0)).save(out / "overlays" / name)
            except OSError as error:
                raise ContsegError(
                    f"{out / 'ids' / name}: cannot be written ({error.strerror}); make room, or change --out"
                ) from None
    if skipped:
        console.print(skipped_text(skipped), soft_wrap=True, highlight=False, markup=False)
    if problems and len(found) == 1:
        raise problems[0]
    for problem in problems:
        console.print(f"not predicted: {problem}", soft_wrap=True, highlight=False, markup=False)
    done = len(found) - len(problems)
    if problems:
        failed = f"{len(problems)} of {len(found)} images not predicted, as listed above"
        raise ContsegError(f"{images}: {failed}; {counted(done, 'result')} in {out}")
    console.print(f"{counted(done, 'image')}: {out}", soft_wrap=True)


def decide(segmenter: Segmenter, image: np.ndarray, inference: Inference, path: Path) -> np.ndarray:
    """`predict_image`, with errors that name the image.

    Raises:
        ContsegError: the image is too small, or there is not enough memory.
    """
    try:
        return predict_image(segmenter, image, inference)
    except ContsegError as error:
        raise ContsegError(f"{path}: {error}") from None
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in str(error):
            raise
        size = f"{image.shape[1]}x{image.shape[0]}"
        raise ContsegError(f"{path}: not enough memory for {size} pixels; predict it in windows with --slide 512") from None


def reading_of(own: Recipe | None, bands: list[int] | None, values: list[float] | None) -> Reading:
    """How to read images: as in the run of the segmenter, with changes.

    Raises:
        ContsegError: `bands` or `values` are invalid (names the option).
    """
    options = {} if own is None else own.data.options
    chosen = options.get("bands") if bands is None else bands
    try:
        return Reading.of(chosen, options.get("range") if values is None else values)
    except ContsegError as error:
        raise ContsegError(f"--{error}") from None


def overlay(image: np.ndarray, colours: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """The image blended with the colours, half each, where `shown`: (H, W, 3) uint8."""
    mixed = (image >> 1) + (colours >> 1) + (image & colours & 1)  # half of the sum, in 8 bits
    return np.where(shown[..., None], mixed, image)
