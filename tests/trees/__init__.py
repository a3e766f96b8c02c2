"""Tiny copies of every dataset, each in its real layout: `TREES[name](folder)` writes one and opens it."""

from tests.trees.coco_json import coco_json
from tests.trees.isprs import isprs
from tests.trees.official import ade20k, cityscapes, coco_stuff_10k, coco_stuff_164k, lip, pascal_context
from tests.trees.own import (
    digits,
    folder_divided_by_hash,
    folder_with_large_ids,
    folder_with_lists,
    folder_with_subfolders,
    labelme,
)
from tests.trees.panoptic import ade20k_panoptic, coco_panoptic
from tests.trees.voc import voc_augmented, voc_official

OFFICIAL = (voc_official, voc_augmented, ade20k, cityscapes, lip, coco_stuff_10k, coco_stuff_164k, pascal_context, isprs)
OWN = (digits, coco_json, folder_with_lists, folder_with_subfolders, folder_divided_by_hash, folder_with_large_ids,
       labelme)  # fmt: skip
PANOPTIC = (ade20k_panoptic, coco_panoptic)
TREES = {make.__name__: make for make in (*OFFICIAL, *OWN, *PANOPTIC)}
