"""The files of predicted segments: PNGs of ids, a JSON file, and pictures."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from contseg.atomic import atomic_file, write_text
from contseg.data.classes import ClassTable
from contseg.data.files import write_segment_ids
from contseg.data.panoptic_format import panoptic_categories, panoptic_png, segment_rows
from contseg.data.segments import SegmentMap
from contseg.report.segment_map import draw_segments

FILE = "panoptic.json"


class PanopticFiles:
    """`panoptic/NAME.png` with ids, `overlays/NAME.png`, and `panoptic.json` for all images, in COCO's panoptic format.

    Args:
        out: the output folder.
        classes: of the segmenter, in output order, with its things.
    """

    def __init__(self, out: Path, classes: ClassTable):
        self.out, self.classes = out, classes
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def paths(self, name: Path) -> list[Path]:
        """The files of a result, those of all results included.

        Args:
            name: relative, with the ending `.png`.
        """
        return [self.out / "panoptic" / name, self.out / "overlays" / name, self.out / FILE]

    def write(self, name: Path, file: str, pixels: np.ndarray, ids_HW: np.ndarray, classes: Sequence[int]) -> None:
        """Write the result of an image.

        Args:
            name: as of `paths`.
            file: name of the image in the JSON file.
            pixels: (H, W, 3) uint8.
            ids_HW: integers, the place of a pixel's segment in `classes`; below 0 for none.
            classes: output of each segment.

        Raises:
            OSError: a file cannot be written.
        """
        ids, picture, _ = self.paths(name)
        table = np.array(self.classes.colours, dtype=np.uint8)
        drawn = draw_segments(pixels, SegmentMap.of_ids(ids_HW, classes), table, self.classes.is_thing)
        for path in (ids, picture):
            path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(ids) as partial:
            write_segment_ids(partial, panoptic_png(ids_HW))
        with atomic_file(picture) as partial:
            Image.fromarray(drawn).save(partial, format="PNG")
        number, (height, width) = len(self._images) + 1, ids_HW.shape
        self._images.append({"id": number, "file_name": file, "height": height, "width": width})
        rows = segment_rows(ids_HW, classes, self.classes)
        self._annotations.append({"image_id": number, "file_name": name.as_posix(), "segments_info": rows})

    def finish(self) -> None:
        """Write the JSON file.

        Raises:
            OSError: it cannot be written.
        """
        content = {
            "images": self._images,
            "annotations": self._annotations,
            "categories": panoptic_categories(self.classes),
        }
        write_text(self.out / FILE, json.dumps(content, ensure_ascii=False))
