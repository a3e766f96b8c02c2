"""`contseg predict`."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from contseg.cli.console import console, progress_bar
from contseg.cli.predict_files import KINDS, find_images, require_inputs_kept, result_names, skipped_text, write_marker
from contseg.data.classes import ClassTable, Colour
from contseg.data.files import read_image, write_palette_png
from contseg.data.open import DATASETS
from contseg.data.pixels import Reading
from contseg.engine.run import Run
from contseg.errors import ContsegError, counted
from contseg.evaluation.inference import Inference
from contseg.evaluation.predict import predict_image
from contseg.interop.pretrained import is_pretrained, open_segmenter
from contseg.models.segmenter import Segmenter
from contseg.recipes.read import parse_recipe, read_run
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
    file = find_segmenter(source)
    reading = reading_of(file, bands, values)  # also imports the plugins of the run, which the network may need
    segmenter, classes = open_segmenter(file)
    inference = inference_of(file, classes, changes)
    segmenter.to("cuda" if torch.cuda.is_available() else "cpu")
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


def reading_of(file: Path, bands: list[int] | None, values: list[float] | None) -> Reading:
    """How to read images: as in the run of the segmenter, with changes.

    Raises:
        ContsegError: `bands` or `values` are invalid (names the option).
    """
    own = run_recipe(file)
    options = {} if own is None else own.data.options
    chosen = options.get("bands") if bands is None else bands
    try:
        return Reading.of(chosen, options.get("range") if values is None else values)
    except ContsegError as error:
        raise ContsegError(f"--{error}") from None


def run_recipe(file: Path) -> Recipe | None:
    """The recipe of the run that contains a segmenter, RUN/steps/NN/segmenter.safetensors; None if it is not in a run."""
    own = file.resolve().parent.parent.parent / "recipe.yaml"
    return read_run(own) if file.is_file() and own.is_file() else None


def inference_of(file: Path, classes: ClassTable, changes: dict[str, Any]) -> Inference:
    """How to predict: as in the run of the segmenter, with changes. Without a run, a single view of the whole image.

    Raises:
        ContsegError: a change has the wrong type (names which).
    """
    recipe = run_recipe(file)
    settings = recipe.evaluation.model_dump(mode="json") if recipe else {}
    content = {"name": "predict", "data": {"dataset": "folder"}, "evaluation": settings | changes}
    options = parse_recipe(content, "predict").evaluation
    mirror = DATASETS[recipe.data.dataset].mirror if recipe and options.flip else ()
    return Inference.of(options, mirror, classes.ids)


def overlay(image: np.ndarray, colours: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """The image blended with the colours, half each, where `shown`: (H, W, 3) uint8."""
    mixed = (image >> 1) + (colours >> 1) + (image & colours & 1)  # half of the sum, in 8 bits
    return np.where(shown[..., None], mixed, image)


def find_segmenter(source: Path) -> Path:
    """The segmenter at a path: itself (a file, or a folder of `save_pretrained`), or the last step of a run."""
    if not source.is_dir() or is_pretrained(source):
        return source
    run = Run(source).require()
    steps = len(run.confusions())
    if not steps:
        raise ContsegError(f"{source}: no step of this run is finished yet")
    return run.segmenter_path(steps - 1)
