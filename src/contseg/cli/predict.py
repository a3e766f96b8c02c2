"""`contseg predict`."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from contseg.atomic import UnwritableError
from contseg.cli.predict_files import find_images, result_names
from contseg.cli.predict_formats import FORMATS
from contseg.cli.predict_images import Predictor
from contseg.cli.predict_outcome import tell, tell_outcome
from contseg.cli.predict_record import recorded
from contseg.cli.predict_segments import predict_panoptic
from contseg.cli.progress import progress_of
from contseg.data.pixels import Reading
from contseg.data.rasters import is_raster
from contseg.errors import ContsegError, did_you_mean
from contseg.recipes.models import open_model
from contseg.recipes.recipe import Recipe


def run_prediction(
    source: Path,
    images: Path,
    out: Path,
    changes: dict[str, Any],
    bands: list[int] | None = None,
    values: list[float] | None = None,
    form: str | None = None,
    panoptic: bool = False,
) -> None:
    """Predict an image or all images of a folder, and write the results in a format.

    Args:
        changes: changes to the inference of the run, keys as in `InferenceOptions`.
        bands, values: `bands` and `range` of `Reading`; default: those of the run.
        form: a key of `FORMATS`; default: `geotiff` for rasters, `png` for other images.
        panoptic: predict objects and stuff, and write them in COCO's panoptic format, see `predict_panoptic`.

    Raises:
        ContsegError: a result would overwrite a file of the user (see `recorded`), or some images could not be predicted
            (the others are).
    """
    if form is not None and form not in FORMATS:
        raise ContsegError(f"--format {form}: unknown; {did_you_mean(form, FORMATS)}")
    if panoptic and (other := "--format" if form else "--slide, --scales and --flip" if changes else ""):
        raise ContsegError(f"--panoptic: predicts whole images once, in its own format; remove {other}")
    model = open_model(source, "cuda" if torch.cuda.is_available() else "cpu")
    segmenter, classes, inference = model.segmenter, model.classes, model.inferring(changes)
    reading = reading_of(model.recipe, bands, values)
    for text in model.notes:
        tell(f"note: {text}")
    if panoptic:
        predict_panoptic(model, images, out, reading)
        return
    found, skipped = find_images(images)
    chosen = [form or ("geotiff" if is_raster(path) else "png") for path in found]
    formats = {key: FORMATS[key](out, images, classes) for key in sorted(set(chosen))}
    names = result_names(found, images, [formats[key].suffix for key in chosen])
    results = [path for key, name in zip(chosen, names, strict=True) for path in formats[key].paths(name)]
    problems: list[ContsegError] = []
    predictor = Predictor(segmenter, classes, inference, reading, lambda path, text: tell(f"note: {path}: {text}"))
    try:
        with recorded(out, found, results), progress_of("predicting", len(found)) as progress:
            for number, (path, name, key) in enumerate(zip(found, names, chosen, strict=True)):
                try:
                    predictor.predict(path, name, formats[key], partial(progress, number, path.name))
                except UnwritableError:  # the next image could not be written either
                    raise
                except ContsegError as error:
                    problems.append(error)
            for one in formats.values():
                one.finish()
    except OSError as error:
        raise ContsegError(f"{out}: cannot be written ({error.strerror or error}); make room, or change --out") from None
    for text, count in predictor.notes.items():
        if count > 1:
            tell(f"note: {count} images: {text}")
    tell_outcome(images, out, len(found), problems, skipped)


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
