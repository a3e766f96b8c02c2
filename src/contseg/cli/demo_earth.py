"""The map of the Earth after each step of a run, for the report of `contseg demo`."""

from collections.abc import Mapping

import numpy as np
import torch

from contseg.cli.console import progress_bar
from contseg.data.datasets.globe import BLOCK, DEGREE, SOUTH, Globe, read_earth
from contseg.engine.run import MAPS, Run
from contseg.evaluation.predict import predict_batch
from contseg.interop.pretrained import open_segmenter
from contseg.models.segmenter import Segmenter

CELLS = 15
"""Cells of the map per block and direction: one per 10 x 10 pixels of the image."""
BATCH = 8


def draw_earth(runs: Mapping[str, Run]) -> None:
    """Write `maps.npz` of every finished run that has none: image, truth and the prediction after each step.

    Blocks without any land are not predicted; they are water in every map.
    """
    todo = {name: run for name, run in runs.items() if not run.is_readable(MAPS)}
    if not todo:
        return
    image, truth = (array[: (90 - SOUTH) * DEGREE] for array in read_earth())
    step = BLOCK * DEGREE // CELLS
    arrays = {
        "image": image[step // 2 :: step, step // 2 :: step],
        "truth": truth[step // 2 :: step, step // 2 :: step],
        "classes": np.array(Globe.classes.names),
        "colours": np.array(Globe.classes.colours, np.uint8),
    }
    with progress_bar("maps of the Earth") as progress:
        total = sum(run.finished_steps() for run in todo.values())
        done = 0
        for run in todo.values():
            for number in range(run.finished_steps()):
                progress(done, total)
                segmenter, classes = open_segmenter(run.segmenter_path(number))
                ids = np.array(classes.ids, np.uint8)
                arrays[f"step{number}"] = ids[predict_earth(segmenter, image, truth != 0)]
                done += 1
            run.save_arrays(MAPS, **arrays)


def predict_earth(segmenter: Segmenter, image: np.ndarray, land: np.ndarray) -> np.ndarray:
    """Outputs of the classes in a coarse grid, block by block; 0 in blocks without land.

    Args:
        image: (H, W, 3) uint8 of whole blocks.
        land: (H, W) bool.

    Returns:
        (H / 10, W / 10) uint8.
    """
    side = BLOCK * DEGREE
    rows, columns = land.shape[0] // side, land.shape[1] // side
    blocks = land.reshape(rows, side, columns, side).any(axis=(1, 3))
    found = np.zeros((rows, columns, CELLS, CELLS), np.uint8)
    for places in np.array_split(np.argwhere(blocks), -(-int(blocks.sum()) // BATCH)):
        cut = [image[row * side : (row + 1) * side, column * side : (column + 1) * side] for row, column in places]
        batch = torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).contiguous()
        found[places[:, 0], places[:, 1]] = predict_batch(segmenter, batch, (CELLS, CELLS)).numpy()
    return found.transpose(0, 2, 1, 3).reshape(rows * CELLS, columns * CELLS)
