"""A dataset: pictures and masks in two folders."""

from pathlib import Path

import numpy as np
from PIL import Image

from contseg import ClassTable
from contseg.data.dataset import SegmentationDataset, SubsetName, require_layout
from contseg.data.textures import draw_scene


class Shapes(SegmentationDataset):
    """Textured shapes of three classes.

    Layout of `root`:

        pictures/train/0001.png, pictures/test/...
        masks/train/0001.png, masks/test/...        ids: 0 background, 1 stripes, 2 dots, 3 waves; 255 is ignored

    Raises:
        ContsegError: a folder is missing.
    """

    name = "shapes"
    classes = ClassTable.of(["background", "stripes", "dots", "waves"])

    def __init__(self, root: Path | str):
        self.root = require_layout(Path(root), ["pictures/train", "pictures/test"], "a folder of shapes")

    def names(self, subset: SubsetName) -> list[str]:
        return sorted(f"{subset}/{file.stem}" for file in (self.root / "pictures" / subset).glob("*.png"))

    def image_path(self, name: str) -> Path:
        return self.root / "pictures" / f"{name}.png"

    def mask_path(self, name: str) -> Path:
        return self.root / "masks" / f"{name}.png"

    @classmethod
    def write_stand_in(cls, root: Path) -> None:
        """Write 24 samples of 64 x 64 pixels, in which the classes take turns."""
        for number in range(24):
            subset, last = "test" if number % 4 == 3 else "train", 1 + number // 4 % 3
            pixels, mask = draw_scene([last, 1 + number % last], (64, 64), np.random.default_rng(number))
            for kind, array in (("pictures", pixels), ("masks", mask)):
                folder = root / kind / subset
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array.astype(np.uint8)).save(folder / f"{number:04d}.png")
