"""Export as a program of PyTorch (`torch.export`), which runs without this package."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from contseg.atomic import atomic_file
from contseg.data.classes import ClassTable
from contseg.interop.exported import CHECKED, Export, largest_difference, quiet, traced
from contseg.models.segmenter import Segmenter

DESCRIPTION = "contseg.json"
"""File in the archive with classes, network, input and output, as in the metadata of an ONNX file."""


def export_torch(
    path: Path | str,
    segmenter: Segmenter,
    classes: ClassTable,
    *,
    argmax: bool = False,
    tile: int | None = None,
    resolution: float | None = None,
    source: dict[str, Any] | None = None,
    on_stage: Callable[[int, int], None] | None = None,
) -> float:
    """Write a program (.pt2) that `torch.export.load` opens, after it was compared with PyTorch; input and output are those
    of `export_onnx`.

    Args:
        segmenter: the segmenter; it is not changed.
        classes: its classes, in output order.
        argmax: ids of the class table, (B, H, W) uint8, in place of scores (B, K, H, W).
        tile: side of the images in pixels; default: images of any size.
        resolution: of the images for which the segmenter was trained, in cm per pixel; only described.
        source: where the segmenter comes from, as values that JSON supports.
        on_stage: called with the number of finished stages and of all, for progress.

    Returns:
        the largest difference of a score.

    Raises:
        ContsegError: PyTorch cannot trace the network, or the result differs. No file is written then.
    """
    export = Export(segmenter, classes, argmax, tile, resolution, source)
    stages = 2 + len(CHECKED)
    stage = on_stage or (lambda done, total: None)
    stage(0, stages)
    network = export.network()
    with atomic_file(Path(path)) as partial, quiet():
        program = traced(network, export.tile)
        stage(1, stages)
        content = io.BytesIO()  # PyTorch's writer ends the process if the disk is full
        torch.export.save(program, content, extra_files={DESCRIPTION: export.description()})
        partial.write_bytes(content.getbuffer())
        with partial.open("rb") as file:
            loaded = torch.export.load(file).module()
        with torch.no_grad():
            return largest_difference(network, loaded, export.tile, lambda done: stage(2 + done, stages))
