"""`contseg predict`."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from contseg.cli.console import console
from contseg.cli.predict_files import find_images, require_inputs_kept, result_names, skipped_text, write_marker
from contseg.cli.predict_formats import FORMATS
from contseg.cli.predict_images import Predictor
from contseg.cli.progress import progress_of
from contseg.data.classes import ClassTable
from contseg.data.open import DATASETS
from contseg.data.pixels import Reading
from contseg.data.rasters import is_raster
from contseg.engine.run import Run
from contseg.errors import ContsegError, counted, did_you_mean
from contseg.evaluation.inference import Inference
from contseg.interop.pretrained import is_pretrained, open_segmenter
from contseg.recipes.read import parse_recipe, read_run
from contseg.recipes.recipe import Recipe


def run_prediction(
    source: Path,
    images: Path,
    out: Path,
    changes: dict[str, Any],
    bands: list[int] | None = None,
    values: list[float] | None = None,
    form: str | None = None,
) -> None:
    """Predict an image or all images of a folder, and write the results in a format.

    Args:
        changes: changes to the inference of the run, keys as in `InferenceOptions`.
        bands, values: `bands` and `range` of `Reading`; default: those of the run.
        form: a key of `FORMATS`; default: `geotiff` for rasters, `png` for other images.

    Raises:
        ContsegError: a result would overwrite an image, or some images could not be predicted (the others are).
    """
    if form is not None and form not in FORMATS:
        raise ContsegError(f"--format {form}: unknown; {did_you_mean(form, FORMATS)}")
    file = find_segmenter(source)
    reading = reading_of(file, bands, values)  # also imports the plugins of the run, which the network may need
    segmenter, classes = open_segmenter(file)
    inference = inference_of(file, classes, changes)
    segmenter.to("cuda" if torch.cuda.is_available() else "cpu")
    found, skipped = find_images(images)
    chosen = [form or ("geotiff" if is_raster(path) else "png") for path in found]
    formats = {key: FORMATS[key](out, images, classes) for key in sorted(set(chosen))}
    names = result_names(found, images, [formats[key].suffix for key in chosen])
    require_inputs_kept(found, (path for key, name in zip(chosen, names, strict=True) for path in formats[key].paths(name)))
    write_marker(out, names)
    problems: list[ContsegError] = []
    predictor = Predictor(segmenter, classes, inference, reading, lambda path, text: _print(f"note: {path}: {text}"))
    try:
        with progress_of("predicting", len(found)) as progress:
            for number, (path, name, key) in enumerate(zip(found, names, chosen, strict=True)):
                try:
                    predictor.predict(path, name, formats[key], partial(progress, number, path.name))
                except ContsegError as error:
                    problems.append(error)
        for one in formats.values():
            one.finish()
    except OSError as error:
        raise ContsegError(f"{out}: cannot be written ({error.strerror or error}); make room, or change --out") from None
    for text, count in predictor.notes.items():
        if count > 1:
            _print(f"note: {count} images: {text}")
    if skipped:
        _print(skipped_text(skipped))
    if problems and len(found) == 1:
        raise problems[0]
    for problem in problems:
        _print(f"not predicted: {problem}")
    done = len(found) - len(problems)
    if problems:
        failed = f"{len(problems)} of {len(found)} images not predicted, as listed above"
        raise ContsegError(f"{images}: {failed}; {counted(done, 'result')} in {out}")
    console.print(f"{counted(done, 'image')}: {out}", soft_wrap=True)


def _print(line: str) -> None:
    console.print(line, soft_wrap=True, highlight=False, markup=False)


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


def find_segmenter(source: Path) -> Path:
    """The segmenter at a path: itself (a file, or a folder of `save_pretrained`), or the last step of a run."""
    if not source.is_dir() or is_pretrained(source):
        return source
    run = Run(source).require()
    steps = len(run.confusions())
    if not steps:
        raise ContsegError(f"{source}: no step of this run is finished yet")
    return run.segmenter_path(steps - 1)
