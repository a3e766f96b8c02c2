"""Prediction of one image after the other: whole, or in windows where it is a raster or memory is short."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from contseg.atomic import UnwritableError
from contseg.cli.predict_formats import Format, GeoTIFF
from contseg.data.classes import IGNORE, ClassTable
from contseg.data.files import read_image, rescaling
from contseg.data.limits import require_size
from contseg.data.pixels import Reading
from contseg.data.rasters import Raster, is_raster
from contseg.errors import ContsegError
from contseg.evaluation.inference import Inference
from contseg.evaluation.predict import predict_image
from contseg.evaluation.tiles import Part, Photo, is_out_of_memory, predict_tiles, smaller
from contseg.models.segmenter import Segmenter

OnProgress = Callable[[float], None]
"""Called with the predicted fraction of an image."""


class Predictor:
    """Predicts images with a segmenter.

    A raster is predicted in windows (`predict_tiles`), and so is an image for which there is not enough memory; windows
    become smaller until there is. Later images of this size are predicted like this from the start.

    Args:
        classes: in output order.
        note: called with an image and a text for the user, once with each text.

    Attributes:
        notes: how many images each text is about.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        classes: ClassTable,
        inference: Inference,
        reading: Reading,
        note: Callable[[Path, str], None],
    ):
        self._segmenter, self._reading, self._print_note = segmenter, reading, note
        self.notes: Counter[str] = Counter()
        kind = np.uint8 if max(classes.ids) < 256 else np.uint16
        self._ids = np.array([*classes.ids, IGNORE], dtype=kind)  # its last entry is that of undecided pixels, -1
        self._whole = inference
        options = inference.options
        windows = {} if options.mode == "slide" or options.resize is None else {"crop": options.resize, "stride": None}
        self._windows = replace(inference, options=options.model_copy(update={"mode": "slide", **windows}))
        self._too_large = float("inf")  # pixels of the smallest image for which memory was short

    def predict(self, path: Path, name: Path, form: Format, on_progress: OnProgress = lambda fraction: None) -> None:
        """Predict an image, and write its result.

        Args:
            name: the name of the result.

        Raises:
            ContsegError: the image cannot be read or predicted (names it).
            OSError: a result cannot be written.
        """
        try:
            on_progress(0)
            with self._opened(path, form) as image:
                while not self._tried(path, name, form, image, on_progress):
                    if torch.cuda.is_available():
                        torch.cuda.empty_cache()
        except UnwritableError:  # names the result
            raise
        except ContsegError as error:
            if str(error).startswith(f"{path}: "):
                raise
            raise ContsegError(f"{path}: {error}") from None
        except MemoryError:
            raise ContsegError(f"{path}: not enough memory to read it; cut it into parts") from None

    @contextmanager
    def _opened(self, path: Path, form: Format) -> Iterator[Photo | Raster]:
        with (
            Raster(path, self._reading) if is_raster(path) else nullcontext(Photo(read_image(path, self._reading))) as image
        ):
            if not isinstance(form, GeoTIFF):
                require_size(path, *image.size)
            elif isinstance(image, Photo) or not image.georeferenced:
                self._note(path, "has no coordinate reference system, and neither has its result")
            with suppress(ContsegError):  # a format of rasterio
                for text in rescaling(path, self._reading):
                    self._note(path, text)
            yield image

    def _tried(self, path: Path, name: Path, form: Format, image: Photo | Raster, on_progress: OnProgress) -> bool:
        """Whether memory was enough; otherwise, the next try is in smaller windows."""
        whole = isinstance(image, Photo) and image.size[0] * image.size[1] < self._too_large
        tried = self._whole if whole else self._windows
        try:
            form.write(path, name, image, self._labelled(path, image, self._parts(path, image, tried, whole, on_progress)))
            return True
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        # after the exception and the tensors in its frames are released
        height, width = image.size
        following = smaller(tried, image.size)
        if following is None:
            raise ContsegError(
                f"{path}: not enough memory for {width}x{height} pixels, even in windows; use a smaller network"
            )
        self._windows = following
        if whole:
            self._too_large = height * width
        side = following.options.window[0]
        self._note(path, f"not enough memory for {width}x{height} pixels; predicted in windows of {side} pixels")
        return False

    def _parts(
        self, path: Path, image: Photo | Raster, inference: Inference, whole: bool, on_progress: OnProgress
    ) -> Iterable[Part]:
        if isinstance(image, Photo) and whole:
            height, width = image.size
            return [((slice(0, height), slice(0, width)), predict_image(self._segmenter, image.image, inference))]
        if inference.options.fit:
            self._note(path, "is predicted in windows, to which evaluation.fit of the model is not applied")
        return predict_tiles(self._segmenter, image, inference, lambda done, total: on_progress(done / total))

    def _labelled(self, path: Path, image: Photo | Raster, parts: Iterable[Part]) -> Iterator[Part]:
        """The ids of the classes in each part."""
        empty = True
        for (rows, columns), outputs in parts:
            valid = image.valid(rows, columns)
            empty = empty and not valid.any()
            yield (rows, columns), np.where(valid, self._ids[outputs], self._ids.dtype.type(IGNORE))
        if empty:
            self._note(path, "has no data in any pixel, and neither has its result")

    def _note(self, path: Path, text: str) -> None:
        self.notes[text] += 1
        if self.notes[text] == 1:
            self._print_note(path, text)
