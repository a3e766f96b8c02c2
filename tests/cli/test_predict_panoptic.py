"""Files of predicted segments are those that datasets in COCO's panoptic format are read from."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from contseg.cli.predict_panoptic import PanopticFiles
from contseg.data.datasets.panoptic import COCOPanoptic
from contseg.data.datasets.panoptic_rows import overlaps, read_as, read_panoptic
from contseg.data.files import read_segment_ids
from contseg.data.segments import SegmentMap
from contseg.evaluation.panoptic import panoptic_counts

TABLE = COCOPanoptic.classes.subset([0, 187, 1, 200])
IDS = np.array([[0, 0, 1, 1, -1], [0, 2, 2, 1, -1], [3, 3, 3, 3, 3]])
CLASSES = (1, 2, 2, 3)


def test_what_was_written_is_read_again(tmp_path):
    files = PanopticFiles(tmp_path, TABLE)
    pixels = np.full((*IDS.shape, 3), 90, np.uint8)
    names = [Path("a.png"), Path("b.png")]
    for name, ids in zip(names, (IDS, np.full(IDS.shape, -1)), strict=True):
        files.write(name, f"{name.stem}.jpg", pixels, ids, CLASSES)
    files.finish()
    assert all(path.is_file() for name in names for path in files.paths(name))
    found = read_panoptic(tmp_path / "panoptic.json", TABLE, lambda numbers, path: {number: number for number in numbers})
    assert found.images == {"a": "a.jpg", "b": "b.jpg"}
    ids = read_segment_ids(files.paths(names[0])[0])
    assert overlaps(ids, found.segments("a")) == []
    assert len(found.segments("b").ids) == 0
    kinds, numbers = read_as(ids, found.segments("a"), np.array(TABLE.things), Path("a.png"))
    outputs = np.where(kinds == 0, -1, np.searchsorted([0, 1, 187, 200], kinds))
    truth = SegmentMap(np.choose(outputs + 1, [-1, 0, 2, 1, 3]), numbers)
    counts = panoptic_counts(SegmentMap.of_ids(IDS, CLASSES), truth, TABLE.is_thing)
    assert counts.true_positives.tolist() == [0, 1, 2, 1]
    assert counts.iou.tolist() == [0, 1, 2, 1]
    assert not counts.array()[1:3].any()


def test_categories_and_sizes_are_those_of_the_model_and_the_image(tmp_path):
    files = PanopticFiles(tmp_path, TABLE)
    files.write(Path("deep/a.png"), "deep/a.jpg", np.zeros((*IDS.shape, 3), np.uint8), IDS, CLASSES)
    files.finish()
    content = json.loads((tmp_path / "panoptic.json").read_text())
    assert [(row["id"], row["name"], row["isthing"]) for row in content["categories"]] == [
        (187, "sky-other-merged", 0), (1, "person", 1), (200, "rug-merged", 0)
    ]  # fmt: skip
    assert content["images"] == [{"id": 1, "file_name": "deep/a.jpg", "height": 3, "width": 5}]
    assert content["annotations"][0]["file_name"] == "deep/a.png"
    picture = np.asarray(Image.open(tmp_path / "overlays" / "deep" / "a.png"))
    assert picture.shape == (*IDS.shape, 3)
    assert not picture[0, 4].any(), "where there is no segment, the image stays"
