"""`contseg predict --format`: annotations are read again as the masks that were predicted."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contseg.data.classes import ClassTable
from contseg.data.datasets.labelled import all_names, open_labelled
from contseg.interop.segmenter_file import load_segmenter, save_segmenter
from tests.cli.test_bad_input import refused
from tests.cli.test_predict_rasters import NAMES, PLACE, noise, segmenter  # noqa: F401  (a fixture)
from tests.data.test_pictures import save_raster, save_turned
from tests.engine.runs import command


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """The default output folder is in the current one."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def images(tmp_path) -> Path:
    """Three images of different kinds and depths in the tree; one is turned by its EXIF orientation."""
    root = tmp_path / "photos"
    (root / "site").mkdir(parents=True)
    Image.fromarray(noise(40, 60).transpose(1, 2, 0)).save(root / "frame2.png")
    save_turned(noise(40, 60).transpose(1, 2, 0)[:, ::-1].copy(), root / "frame10.png", 6)
    save_raster(root / "site" / "a.tif", noise(50, 70), **PLACE)
    return root


@pytest.fixture
def masks(segmenter, images, tmp_path) -> list[np.ndarray]:  # noqa: F811
    """The ids that are predicted, in the order of the images."""
    assert command("predict", segmenter, images, "--out", tmp_path / "ids", "--format", "png")[0] == 0
    names = ("frame2", "frame10", "site/a")
    return [np.asarray(Image.open(tmp_path / "ids" / "ids" / f"{name}.png")) for name in names]


def matches(found: np.ndarray, classes: ClassTable, mask: np.ndarray) -> None:
    """A mask is that of a prediction if ids are compared by the names of their classes."""
    for number, name in enumerate(NAMES):
        own = classes.ids[classes.names.index(name)] if number and name in classes.names else -1
        if own >= 0:
            assert np.array_equal(found == own, mask == number)
    assert np.array_equal((found == 0) | (found == 255), mask == 0)


@pytest.mark.parametrize("form", ["coco", "labelme", "cvat"])
def test_a_data_set_with_the_annotations_has_the_predicted_masks(segmenter, images, masks, tmp_path, form):  # noqa: F811
    out = images if form == "labelme" else tmp_path / form
    code, _, errors = command("predict", segmenter, images, "--out", out, "--format", form)
    assert (code, errors) == (0, "")
    if form != "labelme":
        (out / "images").symlink_to(images) if form == "coco" else (out / "JPEGImages").symlink_to(images)
    dataset = open_labelled(out, follow_links=True)
    by_name = {Path(name).name: name for name in all_names(dataset)}
    for name, mask in zip(("frame2", "frame10", "a"), masks, strict=True):
        image, found = dataset.read(by_name[name])
        assert image.shape[:2] == mask.shape
        matches(found, dataset.classes, mask)


def test_coco_has_all_images_in_natural_order_and_unique_ids(segmenter, images, tmp_path):  # noqa: F811
    assert command("predict", segmenter, images, "--out", tmp_path / "out", "--format", "coco")[0] == 0
    content = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert [row["file_name"] for row in content["images"]] == ["frame2.png", "frame10.png", "site/a.tif"]
    assert [row["id"] for row in content["images"]] == [1, 2, 3]
    assert [row["id"] for row in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    assert {row["image_id"] for row in content["annotations"]} == {1, 2, 3}
    assert [row["name"] for row in content["categories"]] == list(NAMES[1:])


def test_masks_for_cvat_are_no_images_the_next_time(segmenter, images, tmp_path):  # noqa: F811
    for _ in range(2):
        code, said, _ = command("predict", segmenter, images, "--out", images, "--format", "cvat")
        assert code == 0
        assert "3 images: " in said
    assert (images / "ImageSets" / "Segmentation" / "default.txt").read_text() == "frame2\nframe10\nsite/a\n"


def test_an_unknown_format_is_refused(segmenter, images):  # noqa: F811
    refused("predict", segmenter, images, "--format", "tiff", telling="--format tiff: unknown; did you mean 'geotiff'?")


def test_ids_above_255_are_refused_for_png_and_written_as_geotiff(segmenter, images, tmp_path):  # noqa: F811
    network, classes = load_segmenter(segmenter)
    table = ClassTable(classes.names, (0, 7, 300), classes.colours)
    save_segmenter(tmp_path / "s.safetensors", network, table)
    words = ["predict", tmp_path / "s.safetensors", images / "site", "--out", tmp_path / "out", "--format"]
    refused(*words, "png", telling="--format png: class id 300 does not fit an 8-bit PNG; use --format geotiff")
    for form in ("geotiff", "coco"):
        assert command(*words, form)[0] == 0
    import rasterio

    with rasterio.open(tmp_path / "out" / "ids" / "a.tif") as file:
        assert file.dtypes == ("uint16",)
        assert set(np.unique(file.read(1))) <= {0, 7, 300}
        assert file.tags(1)["CLASS_300"] == NAMES[2]
