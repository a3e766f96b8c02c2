"""The presence table against plain mask decoding on all cores, and the plan of ADE20K 100-5 from a cached table."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks.timing import Work, seconds
from contseg.data.classes import ClassTable
from contseg.data.dataset import SegmentationDataset, SubsetName
from contseg.data.presence import Presence, build_presence
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.plan import make_plan
from contseg.scenarios.scenario import Scenario

MASKS, DISTINCT, HEIGHT, WIDTH = 20_000, 200, 375, 500


def _draw_mask(rng: np.random.Generator) -> np.ndarray:
    """A mask as VOC has them: one to three ragged shapes with borders of 255 on background."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for _ in range(rng.integers(1, 4)):
        middle, radii = rng.uniform(0.2, 0.8, 2) * mask.shape, rng.uniform(0.08, 0.3, 2) * mask.shape
        y, x = (rows - middle[0]) / radii[0], (columns - middle[1]) / radii[1]
        angle, distance = np.arctan2(y, x), np.hypot(y, x)
        edge = 1 + 0.15 * np.sin(angle * rng.integers(3, 9)) + 0.05 * np.sin(angle * rng.integers(20, 40))
        mask[distance < edge * 1.03] = 255
        mask[distance < edge] = rng.integers(1, 21)
    return mask


class _Drawn(SegmentationDataset):
    """`MASKS` samples of which `DISTINCT` differ; the others are hard links to them."""

    name = "drawn"
    classes = ClassTable.of(["background", *(f"class {number}" for number in range(1, 21))])

    def __init__(self, root: Path):
        self.root, rng = root, np.random.default_rng(0)
        for folder in ("images", "masks"):
            (root / folder).mkdir()
        self._names = [f"{number:06d}" for number in range(MASKS)]
        for number, name in enumerate(self._names):
            if number < DISTINCT:
                Image.fromarray(_draw_mask(rng)).save(self.mask_path(name))
                coarse = Image.fromarray(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8))
                coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(self.image_path(name), quality=92)
            else:
                first = self._names[number % DISTINCT]
                self.mask_path(name).hardlink_to(self.mask_path(first))
                self.image_path(name).hardlink_to(self.image_path(first))

    def names(self, subset: SubsetName) -> list[str]:
        return self._names

    def image_path(self, name: str) -> Path:
        return self.root / "images" / f"{name}.jpg"

    def mask_path(self, name: str) -> Path:
        return self.root / "masks" / f"{name}.png"


class Drawn:
    """The drawn samples, in a folder that exists as long as this object."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.path = Path(self._folder.name)
        self.dataset = _Drawn(self.path)

    def scan(self, cached: bool = False) -> None:
        """Read all masks into a table, or the table from the cache."""
        with mock.patch.dict(os.environ, CONTSEG_CACHE=f"{self.path}/cache"):
            build_presence(self.dataset, "train", cached=cached)

    def decode(self) -> None:
        """Decode all masks into arrays, on all cores."""
        files = [str(self.dataset.mask_path(name)) for name in self.dataset.names("train")]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(_decode, [files[start : start + 100] for start in range(0, len(files), 100)]))


def _decode(part: list[str]) -> None:
    for file in part:
        with Image.open(file) as mask:
            np.asarray(mask)


def presence_table() -> tuple[Work, Work]:
    """Reading all masks into a table, and decoding them into arrays."""
    drawn = Drawn()
    return drawn.scan, drawn.decode


def presence_again() -> float:
    """Seconds of the same table once more, from the cache."""
    drawn = Drawn()
    return seconds(lambda: drawn.scan(cached=True), repeats=3)


class Counted(SegmentationDataset):
    """Images that nobody reads, of a background and classes that are counted in tables drawn at random.

    Args:
        classes: number of classes besides background.
        train, test: number of images.
    """

    name = "counted"
    root = Path()

    def __init__(self, classes: int = 150, train: int = 20_210, test: int = 2_000):
        self.classes = ClassTable.of(["background", *(f"class {number}" for number in range(1, classes + 1))])
        self.sizes: dict[SubsetName, int] = {"train": train, "test": test}
        self._names = {subset: [f"{subset}_{number:08d}" for number in range(size)] for subset, size in self.sizes.items()}

    def names(self, subset: SubsetName) -> list[str]:
        return self._names[subset]

    def image_path(self, name: str) -> Path:
        return Path(f"{name}.jpg")

    def mask_path(self, name: str) -> Path:
        return Path(f"{name}.png")

    def presence(self, subset: SubsetName) -> Presence:
        """A table of ten classes per image."""
        count, rng = self.sizes[subset], np.random.default_rng(0)
        pixels = np.zeros((count, len(self.classes)), dtype=np.int64)
        drawn = rng.geometric(0.03, (count, 10)) % len(self.classes)
        pixels[np.arange(count)[:, None], drawn] = rng.integers(100, 20_000, drawn.shape)
        masks = rng.integers(0, 256, (count, 8), dtype=np.uint8)
        return Presence(tuple(self.names(subset)), self.classes.ids, pixels, subset, masks)


def planning(dataset: Counted, split: str, steps: int) -> Work:
    """A function that plans a split of the dataset, of so many steps, from presence tables."""
    tables = {subset: dataset.presence(subset) for subset in dataset.sizes}

    def plan() -> None:
        with mock.patch("contseg.scenarios.scenario.build_presence", lambda dataset, subset, progress: tables[subset]):
            assert len(make_plan(Scenario(dataset, ScenarioOptions(split=split))).steps) == steps

    return plan


def ade_plan() -> float:
    """Seconds of the plan of ADE20K 100-5, with its 20,210 training images, from presence tables."""
    return seconds(planning(Counted(), "100-5", 11), repeats=3)
