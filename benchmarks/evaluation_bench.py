"""What evaluation costs beside the forward passes of the network, and the memory of its parts."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import torch

from benchmarks.networks_bench import reference
from contseg.engine.memory import peak_memory
from contseg.evaluation.decisions import best_classes_resized
from contseg.evaluation.inference import Inference, windows_of
from contseg.evaluation.options import InferenceOptions
from contseg.evaluation.predict import evaluate
from contseg.evaluation.tiles import predict_tiles
from contseg.models.options import NetworkOptions
from contseg.models.segmenter import Segmenter
from contseg.scenarios.batch import Batch

CLASSES, SIDE = 151, 512
Pair = tuple[Callable[[], object], Callable[[], object]]


def _segmenter() -> Segmenter:
    """ResNet-50 at output stride 8 with FCN, 151 classes."""
    torch.manual_seed(0)
    segmenter = reference("fcn")
    segmenter.grow(1, "random")
    return segmenter


def evaluation() -> Pair:
    """An evaluation of an image of 512 x 512 from uint8 to the confusion matrix, against its forward pass."""
    segmenter = _segmenter()
    images = torch.randint(0, 255, (1, 3, SIDE, SIDE), dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (1, SIDE, SIDE))
    batch = Batch(images, labels, ("a",), torch.ones(1, CLASSES, dtype=torch.bool))
    normalised = segmenter.normalise(images)

    @torch.no_grad()
    def forward() -> object:
        return segmenter(normalised).logits

    return lambda: evaluate(segmenter, [batch], CLASSES), forward


class Scene:
    """An image of random pixels that is nowhere in memory.

    Args:
        side: of the square, in pixels.
    """

    def __init__(self, side: int):
        self.size = (side, side)
        self._tile = np.random.default_rng(0).integers(0, 255, (2 * SIDE, 2 * SIDE, 3), dtype=np.uint8)

    def read(self, rows: slice, columns: slice) -> np.ndarray:
        """The pixels of a window of at most `SIDE` pixels."""
        top, left = rows.start % SIDE, columns.start % SIDE
        return self._tile[top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]

    def valid(self, rows: slice, columns: slice) -> np.ndarray:
        """All pixels have data."""
        return np.ones((rows.stop - rows.start, columns.stop - columns.start), dtype=bool)


def _windows() -> Inference:
    return Inference(InferenceOptions(mode="slide", crop=SIDE))


def _predicted(segmenter: Segmenter, side: int) -> int:
    """Predict a scene and forget the result; the number of pixels."""
    return sum(outputs.size for _, outputs in predict_tiles(segmenter, Scene(side), _windows()))


def sliding(side: int = 1194) -> Pair:
    """Windows of 512 x 512 over a scene, against as many forward passes of one window.

    Args:
        side: of the scene; 1194 are nine windows, 6000 are 324 (minutes).
    """
    segmenter = _segmenter()
    count = len(windows_of(side, side, _windows().options))
    image = segmenter.normalise(torch.randint(0, 255, (1, 3, SIDE, SIDE), dtype=torch.uint8))

    @torch.no_grad()
    def forward() -> None:
        for _ in range(count):
            segmenter(image)

    return lambda: _predicted(segmenter, side), forward


def _rise(function: Callable[[], object]) -> float:
    """MiB by which the memory of a fresh process rises at most while a function runs."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_rise_here, function).result()


def _rise_here(function: Callable[[], object]) -> float:
    before = peak_memory(on_gpu=False)
    function()
    after = peak_memory(on_gpu=False)
    assert before is not None
    assert after is not None
    return (after - before) / 2**20


def _decide() -> None:
    """Decide the logits of an image of 512 x 512."""
    best_classes_resized(_tiny(), torch.randn(1, CLASSES, SIDE // 8, SIDE // 8), (SIDE, SIDE))


def _tiny() -> Segmenter:
    """A network whose activations are small next to the logits of 151 classes."""
    network = NetworkOptions(backbone={"name": "resnet18", "width": 4, "output_stride": 8}, head="fcn", head_width=8)
    return Segmenter(network, [CLASSES]).eval()


def _slide(side: int) -> None:
    _predicted(_tiny(), side)


ROWS: dict[str, Callable[[], Pair]] = {
    "evaluation": evaluation,
    "windows": sliding,
    "many-windows": partial(sliding, 6000),
}
"""Name: function that makes (ours, yardstick)."""
MEMORY: dict[str, Callable[[], float]] = {
    "deciding-memory": lambda: _rise(_decide),
    "small-windows-memory": lambda: _rise(partial(_slide, 1877)),
    "windows-memory": lambda: _rise(partial(_slide, 3583)),
}
"""Name: function that measures MiB; the last two are equal if memory does not depend on the size of the image."""
