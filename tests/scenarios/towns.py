"""A dataset of given masks from given places, for protocols that need more than one kind of image."""

from pathlib import Path

import numpy as np
from PIL import Image

from contseg.data.classes import ClassTable
from contseg.data.dataset import SegmentationDataset

TABLE = ClassTable.of(["background", "cat", "dog", "fox", "owl"])


class Towns(SegmentationDataset):
    """Samples named PLACE/NUMBER; a sample's mask holds the classes it is given, one pixel row each."""

    name = "towns"

    def __init__(
        self,
        root: Path,
        train: dict[str, set[int]],
        test: dict[str, set[int]],
        classes: ClassTable = TABLE,
        domains: tuple[str, ...] = (),
    ):
        self.root, self.classes, self.domains = root, classes, domains
        self._names = {"train": list(train), "test": list(test)}
        for name, ids in (train | test).items():
            mask = np.zeros((8, 8), np.uint8)
            for row, number in enumerate(sorted(ids)):
                mask[row] = number
            self.image_path(name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 100, np.uint8)).save(self.image_path(name))
            Image.fromarray(mask).save(self.mask_path(name))

    def names(self, subset):
        return list(self._names[subset])

    def image_path(self, name):
        return self.root / f"{name}.jpg"

    def mask_path(self, name):
        return self.root / f"{name}.png"

    def domain_of(self, name):
        return name.split("/")[0] if self.domains else ""


def cities(root: Path, counts: dict[str, int], tested: tuple[str, ...] = ()) -> Towns:
    """Each place has so many images of all four classes, without background; `tested` places are in the test subset."""
    whole = {f"{place}/{number:02d}": {1, 2, 3, 4} for place, count in counts.items() for number in range(count)}
    train = {name: ids for name, ids in whole.items() if name.split("/")[0] not in tested}
    test = {name: ids for name, ids in whole.items() if name not in train}
    return Towns(root, train, test, TABLE.without_background(), tuple(counts))
