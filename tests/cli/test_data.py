"""`contseg data check`: a table of what is wrong and a table of what is there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contseg.cli.console import console
from tests.engine.runs import command
from tests.trees.coco_json import write_coco
from tests.trees.isprs import isprs


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """Cells of one line, however long the names of folders are."""
    monkeypatch.setattr(console, "_width", 400)


@pytest.fixture
def folder(make_folder) -> Path:
    return make_folder()


def rows(said: str) -> list[list[str]]:
    """The cells of all table rows."""
    lines = (re.split(r"[│┃|]", line)[1:-1] for line in said.splitlines())
    return [[cell.strip() for cell in cells] for cells in lines if len(cells) > 2]


def test_a_sound_folder_is_counted(make_folder):
    folder = make_folder(12)
    code, said, errors = command("data", "check", "folder", folder)
    assert (code, errors) == (0, "")
    assert f"{folder}: no problems found" in said
    assert "4 classes in 9 train, 3 test samples" in said
    table = {row[1]: row for row in rows(said)}
    masks = [np.asarray(Image.open(folder / "masks" / f"{number:03d}.png")) for number in range(12)]
    for number, name in enumerate(("background", "red", "green", "blue")):
        images, pixels = sum((mask == number).any() for mask in masks[:9]), sum((mask == number).sum() for mask in masks[:9])
        assert table[name][:4] == [str(number), name, str(images), str(pixels)]


def test_every_problem_is_a_row_and_the_end_is_one_line(folder):
    (folder / "images" / "001.png").write_text("hello")
    (folder / "masks" / "007.png").unlink()
    code, said, errors = command("data", "check", "folder", folder)
    assert code == 2
    assert errors == f"error: {folder}: 2 problems in 2 files, as listed above\n"
    problems = [row for row in rows(said) if row[0] in ("train", "test")]
    assert [row[:3] for row in problems] == [
        ["train", "001", str(folder / "images" / "001.png")],
        ["test", "007", str(folder / "masks" / "007.png")],
    ]
    assert problems[0][3].startswith("cannot be read as an image")
    assert problems[1][3].startswith("mask not found")
    assert "background" in said
    assert "nothing is wrong" not in said


def test_a_class_that_never_occurs_is_marked(folder):
    (folder / "classes.txt").write_text("background\nred\ngreen\nblue\n[gold]\n")
    code, said, _ = command("data", "check", "folder", folder)
    assert code == 0
    (gold,) = (row for row in rows(said) if row[1] == "[gold]")
    assert gold[2:] == ["never", "-", "never", "-"]
    assert "note: no mask contains [gold]: cannot be learned from these masks\n" in said
    assert "nothing is wrong" not in said
    assert said.endswith(f"{folder}: no problems found; see the notes above\n")


def test_rows_that_are_left_out_are_listed(tmp_path):
    write_coco(tmp_path)
    path = tmp_path / "annotations" / "instances_val.json"
    written = json.loads(path.read_text())
    written["annotations"][0]["segmentation"] = []
    path.write_text(json.dumps(written))
    code, said, _ = command("data", "check", "coco-json", tmp_path)
    assert code == 0
    assert f"{path} │ annotation 1000: its segmentation is empty" in said
    assert f"note: {path}: 1 annotation of" in said


@pytest.mark.parametrize("option", ["background=none", "background=false"])
def test_a_folder_without_background_is_checked_as_such(folder, option):
    (folder / "classes.txt").write_text("road\nred\ngreen\nblue\n")
    code, _, errors = command("data", "check", "folder", folder)
    assert code == 2
    assert "data.options.background=none" in errors
    code, said, _ = command("data", "check", "folder", folder, option)
    assert code == 0
    assert [row[1] for row in rows(said)][-5:-1] == ["road", "red", "green", "blue"]


def test_digits_need_no_folder_and_options_reach_the_dataset(tmp_path):
    code, said, errors = command("data", "check", "digits", "train=5", "test=3", "size=32", "--workers", "2")
    assert (code, errors) == (0, "")
    assert "11 classes in 5 train, 3 test samples" in said


def test_options_of_datasets_with_folders(tmp_path):
    isprs(tmp_path / "isprs")
    _, said, _ = command("data", "check", "isprs", tmp_path / "isprs", "background=false")
    assert "5 classes in 4 train, 2 test samples" in said
    write_coco(tmp_path / "coco")
    (tmp_path / "coco" / "train").rename(tmp_path / "coco" / "pictures")
    code, said, _ = command("data", "check", "coco-json", tmp_path / "coco", "train_images=pictures")
    assert code == 0
    assert [row[1] for row in rows(said)][-4:] == ["car", "cat", "dog", "ignored"]


@pytest.mark.parametrize(
    ("arguments", "telling"),
    [
        (["foldr", "."], "unknown dataset 'foldr'; did you mean 'folder'"),
        (["folder"], "dataset 'folder' needs a folder"),
        (["folder", "absent"], "absent: folder not found"),
        (["digits", "colour=1"], "colour"),
        (["digits", "train=3", "size"], "'size': write KEY=VALUE, such as background=unlabelled"),
        (["folder", ".", "x=[1"], "'x=[1': the value is not YAML"),
        (["folder", ".", "=1"], "'=1': write KEY=VALUE"),
    ],
)
def test_arguments_that_mean_nothing_are_told(tmp_path, monkeypatch, arguments, telling):
    monkeypatch.chdir(tmp_path)
    code, _, errors = command("data", "check", *arguments)
    assert code == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    assert telling in line


def test_images_that_are_read_otherwise_than_stored_are_said(tmp_path):
    from tests.data.test_pictures import save_turned

    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    (tmp_path / "classes.txt").write_text("background\ncat\n")
    for name in "abcde":
        Image.fromarray(np.ones((32, 48), np.uint8)).save(tmp_path / "masks" / f"{name}.png")
        Image.fromarray(np.zeros((32, 48), np.uint16)).save(tmp_path / "images" / f"{name}.png")
    (tmp_path / "images" / "a.png").unlink()
    save_turned(np.zeros((32, 48, 3), np.uint8), tmp_path / "images" / "a.jpg", 6)
    (tmp_path / "train.txt").write_text("a\nb\nc\n")
    (tmp_path / "test.txt").write_text("d\ne\n")
    code, said, _ = command("data", "check", "folder", tmp_path)
    assert code == 0
    assert "1 image: turned upright by their EXIF orientation" in said
    assert (
        "4 images: 16 bits, of which 0 to 65535 become 0 to 255 (data.options.range, or predict --range, sets others)"
        in said
    )
    assert said.splitlines()[-1] == f"{tmp_path}: no problems found; see the notes above"
