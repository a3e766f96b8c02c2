"""`contseg predict --panoptic`: objects and stuff of images, in COCO's panoptic format."""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from contseg.atomic import UnwritableError
from contseg.cli.predict_files import find_images, result_names
from contseg.cli.predict_outcome import tell_outcome
from contseg.cli.predict_panoptic import PanopticFiles
from contseg.cli.predict_record import recorded
from contseg.cli.progress import progress_of
from contseg.data.files import read_image
from contseg.data.limits import require_size
from contseg.data.pixels import Reading
from contseg.errors import ContsegError
from contseg.evaluation.segments import predict_segments, require_panoptic
from contseg.evaluation.tiles import is_out_of_memory
from contseg.recipes.models import Opened

OPTION = "--panoptic"


def predict_panoptic(model: Opened, images: Path, out: Path, reading: Reading) -> None:
    """Predict the segments of an image or of all images of a folder, and write PNGs of ids, a JSON file and pictures.

    Raises:
        ContsegError: the network has no masks, or no thing among its classes; a result would overwrite a file of the user
            (see `recorded`); or some images could not be predicted (the others are).
    """
    require_panoptic(model.segmenter, model.classes, OPTION)
    found, skipped = find_images(images)
    files = PanopticFiles(out, model.classes)
    names = result_names(found, images, [".png"] * len(found))
    results = dict.fromkeys(path for name in names for path in files.paths(name))
    problems: list[ContsegError] = []
    model.segmenter.eval()
    try:
        with recorded(out, found, list(results)), progress_of("predicting", len(found)) as progress:
            for number, (path, name) in enumerate(zip(found, names, strict=True)):
                on_progress = partial(progress, number, path.name)
                on_progress(0)
                try:
                    pixels, ids, classes = _segments(model, path, reading)
                    file = path.relative_to(images) if path != images else Path(path.name)
                    files.write(name, file.as_posix(), pixels, ids, classes)
                except UnwritableError:  # the next image could not be written either
                    raise
                except ContsegError as error:
                    problems.append(error)
                on_progress(1)
            files.finish()
    except OSError as error:
        raise ContsegError(f"{out}: cannot be written ({error.strerror or error}); make room, or change --out") from None
    tell_outcome(images, out, len(found), problems, skipped)


def _segments(model: Opened, path: Path, reading: Reading) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Pixels of an image, the place of each pixel's segment (H, W), and the output of each segment.

    Raises:
        ContsegError: the image cannot be read or predicted (names it).
    """
    pixels = read_image(path, reading)
    require_size(path, *pixels.shape[:2])
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].to(model.segmenter.mean.device)
    try:
        (found,) = predict_segments(model.segmenter, tensor, model.classes, model.inference)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        height, width = pixels.shape[:2]
        raise ContsegError(f"{path}: not enough memory for the objects of {width}x{height} pixels; shrink it") from None
    except ContsegError as error:
        raise ContsegError(f"{path}: {error}") from None
    return pixels, found.ids.cpu().numpy(), found.classes
