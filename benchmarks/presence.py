"""The presence table against plain mask decoding on all cores, and the plan of ADE20K 100-5 from a cached table."""

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar
from unittest import mock

import numpy as np
from PIL import Image

from benchmarks.timing import seconds
from contseg.data.classes import ClassTable
from contseg.data.dataset import SegmentationDataset, SubsetName
from contseg.data.presence import Presence, build_presence
from contseg.scenarios.options import ScenarioOptions
from contseg.scenarios.plan import make_plan
from contseg.scenarios.scenario import Scenario

MASKS, DISTINCT, HEIGHT, WIDTH = 20_000, 200, 375, 500
Figures = tuple[float, float, float]


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


def presence_table() -> tuple[Figures, float]:
    """Reading `MASKS` masks into a table against decoding them into arrays, and the seconds of asking once more."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, CONTSEG_CACHE=f"{folder}/cache"):
        dataset = _Drawn(Path(folder))
        files = [str(dataset.mask_path(name)) for name in dataset.names("train")]

        def decode(part: list[str]) -> None:
            for file in part:
                with Image.open(file) as mask:
                    np.asarray(mask)

        def plain() -> None:
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(decode, [files[start : start + 100] for start in range(0, MASKS, 100)]))

        theirs = seconds(plain, repeats=2)
        mine = seconds(lambda: build_presence(dataset, "train", cached=False), repeats=2)
        build_presence(dataset, "train")
        return (mine, theirs, mine / theirs), seconds(lambda: build_presence(dataset, "train"), repeats=3)


class _Counted(SegmentationDataset):
    """150 classes and background in 20,210 + 2,000 images that nobody looks at: as large as ADE20K."""

    name = "counted"
    root = Path()
    classes = ClassTable.of(["background", *(f"class {number}" for number in range(1, 151))])
    sizes: ClassVar[dict[SubsetName, int]] = {"train": 20_210, "test": 2_000}

    def names(self, subset: SubsetName) -> list[str]:
        return [f"{subset}_{number:08d}" for number in range(self.sizes[subset])]

    def image_path(self, name: str) -> Path:
        return Path(f"{name}.jpg")

    def mask_path(self, name: str) -> Path:
        return Path(f"{name}.png")


def ade_plan() -> float:
    """Seconds of the plan of ADE20K 100-5 (11 steps), given its presence tables of ten classes per image."""
    dataset, rng = _Counted(), np.random.default_rng(0)
    tables = {}
    for subset, count in dataset.sizes.items():
        pixels = np.zeros((count, len(dataset.classes)), dtype=np.int64)
        drawn = rng.geometric(0.03, (count, 10)) % len(dataset.classes)
        pixels[np.arange(count)[:, None], drawn] = rng.integers(100, 20_000, drawn.shape)
        tables[subset] = Presence(tuple(dataset.names(subset)), dataset.classes.ids, pixels, subset)

    def plan() -> None:
        assert len(make_plan(Scenario(dataset, ScenarioOptions(split="100-5"))).steps) == 11

    with mock.patch("contseg.scenarios.scenario.build_presence", lambda dataset, subset, progress: tables[subset]):
        return seconds(plan, repeats=3)
