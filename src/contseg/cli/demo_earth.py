"""The map of the Earth after each step of a run, for the report of `contseg demo`."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from contseg.cli.console import progress_bar
from contseg.data.datasets.globe import BLOCK, DEGREE, SOUTH, Globe, read_earth
from contseg.engine.run import MAPS, Run
from contseg.evaluation.predict import predict_batch
from contseg.interop.pretrained import open_segmenter
from contseg.models.backbones.backbone import Backbone
from contseg.models.segmenter import Segmenter

CELLS = 15
"""Cells of the map per block and direction: one per 10 x 10 pixels of the image."""
MARGIN = 2
"""Cells around a block that are predicted with it and cut off."""
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
    opened = [open_segmenter(run.segmenter_path(step)) for run in todo.values() for step in range(run.finished_steps())]
    with progress_bar("maps of the Earth") as progress:
        found = predict_earth([segmenter for segmenter, _ in opened], image, truth != 0, progress)
    maps = iter([np.array(classes.ids, np.uint8)[own] for own, (_, classes) in zip(found, opened, strict=True)])
    for run in todo.values():
        run.save_arrays(MAPS, **arrays, **{f"step{step}": next(maps) for step in range(run.finished_steps())})


def predict_earth(
    segmenters: Sequence[Segmenter],
    image: np.ndarray,
    land: np.ndarray,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[np.ndarray]:
    """Outputs of the classes in a coarse grid, block by block; 0 in blocks without land.

    Args:
        segmenters: of the same or of several networks. A backbone with the weights of the first one's is computed once.
        image: (H, W, 3) uint8 of whole blocks.
        land: (H, W) bool.
        progress: called with the number of batches so far and of all.

    Returns:
        of each segmenter (H / 10, W / 10) uint8.
    """
    side = BLOCK * DEGREE
    edge = MARGIN * side // CELLS
    window, cells = side + 2 * edge, CELLS + 2 * MARGIN
    around = np.pad(np.pad(image, ((edge, edge), (0, 0), (0, 0)), "edge"), ((0, 0), (edge, edge), (0, 0)), "wrap")
    rows, columns = land.shape[0] // side, land.shape[1] // side
    blocks = land.reshape(rows, side, columns, side).any(axis=(1, 3))
    found = [np.zeros((rows, columns, CELLS, CELLS), np.uint8) for _ in segmenters]
    inner = slice(MARGIN, -MARGIN)
    _share_backbone(segmenters)
    batches = np.array_split(np.argwhere(blocks), -(-int(blocks.sum()) // BATCH))
    for number, places in enumerate(batches):
        progress(number, len(batches))
        cut = [around[row : row + window, column : column + window] for row, column in side * places]
        batch = torch.from_numpy(np.stack(cut)).permute(0, 3, 1, 2).contiguous()
        for segmenter, own in zip(segmenters, found, strict=True):
            own[places[:, 0], places[:, 1]] = predict_batch(segmenter, batch, (cells, cells))[:, inner, inner].numpy()
    return [own.transpose(0, 2, 1, 3).reshape(rows * CELLS, columns * CELLS) for own in found]


class _Once(Backbone):
    """A backbone that keeps the maps of its last images."""

    def __init__(self, backbone: Backbone):
        super().__init__()
        self.backbone, self.channels = backbone, backbone.channels
        self.last: tuple[Tensor, list[Tensor]] | None = None

    def forward(self, images_BCHW: Tensor) -> list[Tensor]:
        if self.last is None or not torch.equal(self.last[0], images_BCHW):
            self.last = images_BCHW, self.backbone(images_BCHW)
        return self.last[1]

    def activate(self, map_BCHW: Tensor) -> Tensor:
        return self.backbone.activate(map_BCHW)


def _share_backbone(segmenters: Sequence[Segmenter]) -> None:
    """Let segmenters with the weights of the first one's backbone use it."""
    weights = segmenters[0].backbone.state_dict()
    shared = _Once(segmenters[0].backbone)
    for segmenter in segmenters:
        own = segmenter.backbone.state_dict()
        if own.keys() == weights.keys() and all(torch.equal(value, weights[name]) for name, value in own.items()):
            segmenter.backbone = shared
