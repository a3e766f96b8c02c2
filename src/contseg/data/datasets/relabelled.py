"""A dataset whose masks have the ids of another class table."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from contseg.data.classes import IGNORE, ClassTable
from contseg.data.dataset import SegmentationDataset, SubsetName
from contseg.data.recoding import Recoding
from contseg.digest import sha256


class Relabelled(SegmentationDataset):
    """The images of a dataset, with masks in the ids of another table.

    Args:
        dataset: the dataset; masks with ids that its class table does not list raise an error.
        classes: the table of the new ids.
        ids: new id by id in `dataset`; others become `elsewhere`. 255 remains 255.
        elsewhere: an id, or a void value, of `classes`.

    Example:
        >>> from contseg.data.datasets.digits import Digits
        >>> digits = Digits(train=2, test=1, size=32)
        >>> ones = Relabelled(digits, ClassTable.of(["background", "one"]), {2: 1}, elsewhere=0)
        >>> ones.names("train") == digits.names("train"), int(ones.read_mask(ones.names("train")[0]).max()) <= 1
        (True, True)
    """

    def __init__(self, dataset: SegmentationDataset, classes: ClassTable, ids: Mapping[int, int], elsewhere: int = IGNORE):
        self._dataset = dataset
        self.classes, self.root, self.reading = classes, dataset.root, dataset.reading
        self.notes, self.left_out, self.is_divided = dataset.notes, dataset.left_out, dataset.is_divided
        listed = (*dataset.classes.ids, *dataset.classes.void)
        table = {**dict.fromkeys(listed, elsewhere), **ids, IGNORE: IGNORE}
        self._recode = Recoding(table)
        self.name = f"{dataset.name}-{sha256(str(sorted(table.items())))[:8]}"  # caches of other codings are not its own

    def names(self, subset: SubsetName) -> list[str]:
        return self._dataset.names(subset)

    def image_path(self, name: str) -> Path:
        return self._dataset.image_path(name)

    def mask_path(self, name: str) -> Path:
        return self._dataset.mask_path(name)

    def read_mask(self, name: str) -> np.ndarray:
        return self._recode(self._dataset.read_mask(name), self.mask_path(name))
