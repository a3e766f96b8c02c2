"""Every mistake in the files is told in one line that begins with the file and says what was found."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contseg.data.classes import ClassTable
from contseg.data.datasets.folder import Folder
from contseg.data.datasets.voc import VOC
from contseg.data.open import open_dataset
from contseg.data.presence import build_presence
from contseg.errors import ContsegError


def write_mask(path: Path, mask: np.ndarray) -> None:
    Image.fromarray(mask.astype(np.uint8)).save(path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def strange_ids(root: Path) -> None:
    mask = np.zeros((32, 32))
    mask[0, :5], mask[1, :3] = 77, 9
    write_mask(root / "masks" / "000.png", mask)


LAYOUT = {
    "images missing": (lambda root: (root / "images").rename(root / "pictures"), r"images: folder not found"),
    "masks missing": (lambda root: (root / "masks").rename(root / "labels"), r"masks: folder not found"),
    "classes missing": (lambda root: (root / "classes.txt").unlink(), r"classes\.txt: not found"),
    "classes empty": (lambda root: (root / "classes.txt").write_text("\n"), r"classes\.txt: the list is empty"),
    "classes no yaml": (lambda root: (root / "classes.yaml").write_text("{0: a"), r"classes\.yaml: not YAML"),
    "classes a word": (lambda root: (root / "classes.yaml").write_text("cat"), r"classes\.yaml: expected"),
    "id not a number": (lambda root: (root / "classes.yaml").write_text("{0: a, b: c}"), r"classes\.yaml: expected"),
    "no background": (lambda root: (root / "classes.yaml").write_text("{0: a, 1: b}"), r"classes\.yaml: .*background"),
    "ignore used": (lambda root: (root / "classes.yaml").write_text("{0: a, 255: b}"), r"classes\.yaml: .*255"),
    "classes repeat": (lambda root: (root / "classes.txt").write_text("background\ncat\ncat\n"), r"classes\.txt: .*cat"),
    "colour not RGB": (
        lambda root: (root / "classes.yaml").write_text("[{id: 0, name: a, colour: [1, 2]}]"),
        r"classes\.yaml: expected",
    ),
    "list not UTF-8": (lambda root: (root / "train.txt").write_bytes("caf\u00e9\n".encode("latin-1")), r"train\.txt: "),
    "two images of a name": (
        lambda root: Image.new("RGB", (32, 32)).save(root / "images" / "000.jpg"),
        r"000\.(jpg|png)",
    ),
    "list empty": (lambda root: (root / "train.txt").write_text(""), r"train\.txt: the list is empty"),
    "list names more": (
        lambda root: (root / "train.txt").write_text("000\nabsent\n"),
        r"train\.txt: names 1 image not in .* first 'absent'",
    ),
    "no test folder": (lambda root: only_train_folder(root), r"images: has train/ but no test/, val/ or valid/"),
}


def only_train_folder(root: Path) -> None:
    for name in ("train.txt", "test.txt"):
        (root / name).unlink()
    (root / "images").rename(root / "train")
    (root / "images").mkdir()
    (root / "train").rename(root / "images" / "train")


def all_names(root: Path) -> list[str]:
    dataset = Folder(root)
    return dataset.names("train") + dataset.names("test")


@pytest.mark.parametrize("mistake", LAYOUT)
def test_a_wrong_layout_is_told_when_opened_or_listed(folder, mistake):
    spoil, message = LAYOUT[mistake]
    spoil(folder)
    with pytest.raises(ContsegError, match=message) as caught:
        all_names(folder)
    assert str(caught.value).startswith(str(folder))


def test_a_missing_folder_is_told(tmp_path):
    for kind in (Folder, VOC):
        with pytest.raises(ContsegError, match="absent: folder not found; expected"):
            kind(tmp_path / "absent")


@pytest.mark.parametrize("dataset", ["voc_official"], indirect=True)
@pytest.mark.parametrize(("subset", "file"), [("train", "train.txt"), ("test", "val.txt")])
def test_a_missing_voc_list_is_named(dataset, subset, file):
    (dataset.root / "ImageSets" / "Segmentation" / file).unlink()
    with pytest.raises(ContsegError, match=rf"Segmentation/{file}: list not found"):
        dataset.names(subset)


READING = {
    "mask missing": (lambda root: (root / "masks" / "000.png").unlink(), r"masks/000\.png: mask not found"),
    "mask smaller": (
        lambda root: write_mask(root / "masks" / "000.png", np.zeros((16, 20))),
        r"masks/000\.png: mask is 20x16 but its image is 32x32",
    ),
    "mask RGB": (
        lambda root: Image.new("RGB", (32, 32), "red").save(root / "masks" / "000.png"),
        r"masks/000\.png: mask has mode RGB with the colours \[255, 0, 0\] \(1024 pixels\); masks must be single-channel",
    ),
    "mask truncated": (lambda root: truncate(root / "masks" / "000.png"), r"masks/000\.png: cannot be read as a mask"),
    "mask no image": (
        lambda root: (root / "masks" / "000.png").write_text("hello"),
        r"masks/000\.png: cannot be read as a mask",
    ),
    "image no image": (
        lambda root: (root / "images" / "000.png").write_text("hello"),
        r"images/000\.png: cannot be read as an image",
    ),
}


@pytest.mark.parametrize("mistake", READING)
@pytest.mark.parametrize("how", ["read", "presence"])
def test_a_bad_file_is_told_by_reading_and_by_counting(folder, mistake, how):
    spoil, message = READING[mistake]
    dataset = Folder(folder)
    spoil(folder)
    with pytest.raises(ContsegError, match=message) as caught:
        dataset.read("000") if how == "read" else build_presence(dataset, "train")
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)


def test_a_truncated_image_is_told_when_read(folder):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / "images" / "000.png")
    truncate(folder / "images" / "000.png")
    with pytest.raises(ContsegError, match=r"images/000\.png: cannot be read as an image .*; replace the file"):
        Folder(folder).read("000")


def test_an_image_that_vanished_is_told(folder):
    dataset = Folder(folder)
    (folder / "images" / "000.png").unlink()
    with pytest.raises(ContsegError, match=r"images/000\.png: image not found"):
        dataset.read("000")
    with pytest.raises(ContsegError, match=r"images/000\.png: image not found"):
        build_presence(dataset, "train")


def test_ids_outside_the_class_table_are_told_with_file_ids_and_counts(folder):
    strange_ids(folder)
    with pytest.raises(ContsegError, match=r"masks/000\.png: ids outside the class table: 9 \(3 pixels\), 77 \(5 pixels\)"):
        build_presence(Folder(folder), "train")


def test_a_16_bit_mask_with_an_unknown_id_is_told(folder):
    Image.fromarray(np.full((32, 32), 4000, dtype=np.uint16)).save(folder / "masks" / "000.png")
    with pytest.raises(ContsegError, match=r"masks/000\.png: ids outside the class table: 4000 \(1024 pixels\)"):
        build_presence(Folder(folder), "train")


@pytest.mark.parametrize("value", [-1, 65537])
def test_a_32_bit_mask_with_values_that_are_no_ids_is_told(folder, value):
    """65537 does not become 1."""
    Image.fromarray(np.full((32, 32), value, dtype=np.int32)).save(folder / "masks" / "000.tif")
    (folder / "masks" / "000.png").unlink()
    with pytest.raises(ContsegError, match=rf"masks/000\.tif: mask has values {value} to {value}; ids must be 0 to 65535"):
        Folder(folder).read("000")


TABLES = {
    "lengths differ": ((("a", "b"), (0,), ((0, 0, 0),)), "2 names, 1 ids"),
    "no background": ((("a",), (1,), ((0, 0, 0),)), "background must come first"),
    "empty": (((), (), ()), "background must come first"),
    "ids repeat": ((("a", "b"), (0, 0), ((0, 0, 0),) * 2), "repeat"),
    "ignore used": ((("a", "b"), (0, 255), ((0, 0, 0),) * 2), "255"),
    "id too large": ((("a", "b"), (0, 65536), ((0, 0, 0),) * 2), "65536"),
    "id negative": ((("a", "b"), (0, -1), ((0, 0, 0),) * 2), "-1"),
}


@pytest.mark.parametrize("mistake", TABLES)
def test_a_class_table_that_masks_cannot_hold_is_refused(mistake):
    arguments, message = TABLES[mistake]
    with pytest.raises(ContsegError, match=message):
        ClassTable(*arguments)


def test_an_unknown_class_name_lists_the_known_ones():
    with pytest.raises(ContsegError, match="class 'dgo': not in the class table; did you mean 'dog'"):
        ClassTable.of(["background", "dog"]).index_of("dgo")


def test_an_unknown_option_names_the_closest():
    with pytest.raises(
        ContsegError, match=r"^data\.options\.trian: dataset 'digits' has no such option; did you mean 'train'\?"
    ):
        open_dataset("digits", trian=3)
